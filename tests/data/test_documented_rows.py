"""The rows shown in data/data.md are read by the tasks they are shown for."""

import json
import re
from random import Random

import pytest

from mllm_npu.data.forms import FormTable
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.edit import Edit
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.tasks.interleaved import Interleaved
from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.data.tasks.pure_text import PureText

TASKS = {task.name: task for task in (Caption, Edit, Instruction, Interleaved, Ocr, PureText)}


def examples(path):
    found = re.findall(r"```json (\w+)\n(.*?)```", path.read_text(), flags=re.DOTALL)
    return {kind: json.loads(text) for kind, text in found}


def test_both_languages_show_the_same_rows_of_every_kind(root):
    english = examples(root / "data" / "data.md")
    assert english == examples(root / "data" / "data_zh.md")
    assert set(english) == set(TASKS)


@pytest.mark.parametrize("kind", TASKS)
def test_a_documented_row_becomes_a_sample_as_long_as_told(root, make_row, png, processor, kind):
    names = ("png", "0.png", "1.png", "2.png", "source.png", "target.png")
    pictures = {name: png(32, 16) for name in names}
    row = make_row(json_member=examples(root / "data" / "data.md")[kind], **pictures)
    task = TASKS[kind]()
    table = FormTable.of([task.forms(row, processor.count_tokens)])
    lengths = table.tokens(processor.length_rule, processor.any_resolution).tolist()
    for form, length in enumerate(lengths):
        talk = task.to_conversation(row, Random(0), form)
        assert talk.task == kind
        sample = processor.encode(talk)
        assert sample.num_tokens == length
        assert (sample.labels >= 0).any()
