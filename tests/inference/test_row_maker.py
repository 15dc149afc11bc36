import pytest
import torch

from mllm_npu.errors import RequestError
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.row_maker import RowMaker
from mllm_npu.processing.conversation import ask

CPU = torch.device("cpu")


def make_maker(fakes, *, max_tokens=64, model_tokens=None, draws=True):
    model = fakes.FakeModel({}, draws=draws)
    model.language_model.max_tokens = model_tokens
    return RowMaker(model=model, processor=fakes.ByteProcessor(max_tokens), device=CPU)


def test_a_row_knows_its_prompt_and_the_room_behind_it(fakes):
    row, sample = make_maker(fakes).make(7, ask("abc"), GenerationOptions(seed=4))
    assert (row.number, row.num_prompt, row.room, row.seed) == (7, 3, 61, 4)
    assert sample.num_tokens == 3
    assert row.prompt_LD is None


@pytest.mark.parametrize(("of_model", "most"), [(20, 20), (100, 64), (None, 64)])
def test_the_shorter_of_two_limits_holds(fakes, of_model, most):
    maker = make_maker(fakes, model_tokens=of_model)
    assert maker.max_tokens == most
    assert maker.make(0, ask("abc"), GenerationOptions())[0].room == most - 3


def test_a_forced_picture_is_begun(fakes):
    row, _ = make_maker(fakes).make(0, ask("abc"), GenerationOptions(images="force"))
    assert row.draws
    assert row.num_pending == 3 + fakes.NUM_SLOTS + 2
    with pytest.raises(RequestError, match="no image decoder"):
        make_maker(fakes, draws=False).make(0, ask("abc"), GenerationOptions(images="force"))


def test_what_was_read_is_known_where_repetition_counts_without_pictures(fakes):
    maker = make_maker(fakes)
    question = ask("ab", [fakes.noise_picture(0, (2, 2))])
    row, _ = maker.make(0, question, GenerationOptions(repetition_penalty=1.5))
    assert row.history == list(b"ab")
    assert maker.make(0, question, GenerationOptions())[0].history == []


def test_tiles_are_blocks_where_they_see_all_of_themselves(fakes, real_model, real_processor):
    question = ask("Read the digits.", [fakes.noise_picture(0, (48, 16))])
    maker = RowMaker(model=real_model, processor=real_processor, device=CPU)
    row, sample = maker.make(0, question, GenerationOptions())
    assert row.prompt_blocks == ()
    real_model.bidirectional_images = True
    try:
        maker = RowMaker(model=real_model, processor=real_processor, device=CPU)
    finally:
        real_model.bidirectional_images = False
    row, sample = maker.make(0, question, GenerationOptions())
    assert len(row.prompt_blocks) == len(sample.read_slots) == 4
