"""What task tests share: an rng, a word counter, and the proof that forms are as long as told."""

from random import Random

import numpy as np
import pytest

from mllm_npu.batch import IGNORED_LABEL
from mllm_npu.data.forms import FormTable
from mllm_npu.processing.chat_template import ChatTemplate

SIZES = ((16, 16), (40, 16), (48, 16), (16, 31), (96, 16), (7, 5))
"""Pictures of one to seven tiles under the grids of ``make_processor``."""

TEMPLATES = {
    "no frames": ChatTemplate(),
    "frames": ChatTemplate(
        system_prefix="system: ",
        system_suffix="\n",
        user_prefix="user: ",
        user_suffix=" now\n",
        assistant_prefix="assistant: ",
        assistant_suffix="\n\n",
    ),
    "own system text": ChatTemplate(
        system="which digit is this?",
        system_prefix="at the top ",
        user_prefix="user: ",
        assistant_suffix=" seven",
        learn_suffix=False,
    ),
    "suffix that ends": ChatTemplate(
        user_suffix="\n", assistant_suffix="</s> circle", close_with_eos=False
    ),
}


@pytest.fixture
def rng():
    return Random(0)


@pytest.fixture
def count_words():
    return lambda text: len(text.split())


@pytest.fixture(params=list(TEMPLATES))
def template(request):
    return TEMPLATES[request.param]


@pytest.fixture(params=SIZES, ids=str)
def size(request):
    return request.param


@pytest.fixture
def assert_exact(make_processor, tokenizer, template):
    """Every form of a row, encoded, has the tokens, tiles and labels that were told of it."""
    processor = make_processor(tokenizer, chat_template=template, max_tokens=5000)

    def check(task, row):
        forms = task.forms(row, processor.count_tokens)
        table = FormTable.of([forms])
        samples = [
            processor.encode(task.to_conversation(row, Random(number), number))
            for number in range(len(forms))
        ]
        tokens = table.tokens(processor.length_rule, processor.any_resolution)
        assert [sample.num_tokens for sample in samples] == tokens.tolist()
        tiles = table.tiles(processor.any_resolution)
        assert [len(sample.tiles) for sample in samples] == tiles.tolist()
        learnt = [int((sample.labels != IGNORED_LABEL).sum()) for sample in samples]
        mean = np.average(learnt, weights=[form.share for form in forms])
        assert table.totals().num_targets(processor.length_rule) == pytest.approx(mean)
        return samples

    return check
