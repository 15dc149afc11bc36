from types import SimpleNamespace

import pytest
import torch

from mllm_npu.inference.image_tokens import ImageTokens


@pytest.fixture
def tokens(fakes):
    return ImageTokens(
        processor=fakes.ByteProcessor(), vocab_size=fakes.VOCABULARY, device=torch.device("cpu")
    )


def test_a_block_is_begin_slots_end(tokens, fakes):
    assert tokens.block == (fakes.BEGIN, *fakes.SLOTS[: fakes.NUM_SLOTS], fakes.END)


def test_what_may_not_be_chosen_is_minus_infinity_and_nothing_else_changes(tokens, fakes):
    scores = torch.full((2, fakes.VOCABULARY), -3.0)
    masked = tokens.mask_scores(scores, may_draw=[True, False])
    banned = {*fakes.SLOTS, fakes.END, fakes.PATCH_BEGIN, fakes.PATCH_END, fakes.PAD}
    banned |= set(range(fakes.NUM_KNOWN, fakes.VOCABULARY))
    assert set(torch.where(masked[0] == -torch.inf)[0].tolist()) == banned
    assert set(torch.where(masked[1] == -torch.inf)[0].tolist()) == banned | {fakes.BEGIN}
    assert set(masked[0].unique().tolist()) == {-torch.inf, -3.0}
    assert bool((scores == -3.0).all())


def test_a_pad_that_also_ends_texts_may_be_chosen(fakes):
    processor = fakes.ByteProcessor()
    processor.pad_id = processor.eos_id
    tokens = ImageTokens(
        processor=processor, vocab_size=fakes.VOCABULARY, device=torch.device("cpu")
    )
    masked = tokens.mask_scores(torch.zeros(1, fakes.VOCABULARY), may_draw=[True])
    assert masked[0, fakes.EOS] == 0.0


def test_features_come_from_the_states_of_the_slots(tokens, fakes):
    hidden = torch.arange(9.0)[None, :, None].expand(1, 9, 8)
    features = tokens.predict_features(fakes.FakeModel({}), hidden)
    assert features[0, :, 0].tolist() == [4.0, 5.0, 6.0, 7.0]


def test_without_tags_no_picture_can_begin(fakes):
    processor = fakes.ByteProcessor()
    tags = dict.fromkeys(("begin", "end", "patch_begin", "patch_end"))
    processor.image_ids = SimpleNamespace(slots=fakes.SLOTS[:1], **tags)
    tokens = ImageTokens(
        processor=processor, vocab_size=fakes.VOCABULARY, device=torch.device("cpu")
    )
    assert (tokens.begin, tokens.block) == (None, ())
    masked = tokens.mask_scores(torch.zeros(2, fakes.VOCABULARY), may_draw=[True, False])
    assert torch.equal(masked[0], masked[1])
    assert masked[0, fakes.SLOTS[0]] == -torch.inf
    assert masked[0, fakes.BEGIN] == 0.0
