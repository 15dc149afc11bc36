from dataclasses import replace

import numpy as np
import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.redrawing import picture_of, redraw_examples
from mllm_npu.evaluate.runner import run_tasks
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ask
from mllm_npu.processing.raster import Raster, to_pillow


def make_examples(fakes, num, **changes):
    return [
        fakes.make_example(
            "the same picture",
            number,
            conversation=ask(f"picture {number}", [fakes.noise_picture(number)]),
            options=GenerationOptions(seed=3),
            redraws=True,
            **changes,
        )
        for number in range(num)
    ]


@pytest.fixture
def engine(fakes):
    """Gives pictures back as they are, and can say nothing."""
    made = fakes.Oracle(None)
    made.max_batch = 4
    return made


def test_pictures_go_through_in_batches(engine, fakes):
    examples = make_examples(fakes, 6)
    replies = dict(redraw_examples(engine, examples))
    assert engine.redraws == [(4, 2.0), (2, 2.0)]
    assert sorted(replies) == list(range(6))
    for number, reply in replies.items():
        assert reply.pictures == (picture_of(examples[number]),)
        assert (reply.text, len(reply.features), reply.finish_reason) == ("", 1, "stop")


def test_pictures_with_other_options_go_apart(engine, fakes):
    examples = make_examples(fakes, 3)
    examples[1] = replace(examples[1], options=GenerationOptions(seed=3, guidance=5.0))
    assert [number for number, _ in redraw_examples(engine, examples)] == [0, 2, 1]
    assert engine.redraws == [(2, 2.0), (1, 5.0)]


def test_a_picture_may_be_stored_in_any_form(engine, fakes):
    pixels = np.asarray(fakes.noise_picture(1))
    [example] = make_examples(fakes, 1)
    example = replace(example, conversation=ask("one", [Raster(pixels)]))
    [(_, reply)] = redraw_examples(engine, [example])
    assert np.array_equal(np.asarray(reply.pictures[0]), pixels)
    assert to_pillow(picture_of(example)).size == (16, 16)


def test_an_example_without_a_picture_is_refused(engine, fakes):
    example = fakes.make_example("x", conversation=ask("nothing to see"), redraws=True)
    with pytest.raises(DataError, match="e0 was to be redrawn, it shows none"):
        list(redraw_examples(engine, [example]))


def test_the_runner_redraws_and_asks_nothing(engine, fakes):
    class Redrawn(fakes.EchoTask):
        def examples(self):
            return make_examples(fakes, 5)

    [result] = run_tasks([Redrawn([])], engine)
    assert engine.asked == []
    assert engine.redraws == [(4, 2.0), (1, 2.0)]
    for record in result.records:
        assert record.reply.pictures == (picture_of(record.example),)
