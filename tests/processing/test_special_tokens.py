"""Extra tokens are added once, at the end, and found again."""

import pytest
from tokenizers import AddedToken

from mllm_npu.errors import ConfigError
from mllm_npu.processing.special_tokens import (
    ImageIds,
    SpecialTokens,
    add_special_tokens,
    box_ids,
    location_token,
    reserved_ids,
    slot_token,
)
from mllm_npu.processing.tokenizer import train_tokenizer


@pytest.fixture
def plain():
    return train_tokenizer(["a cat"] * 5, vocab_size=270)


def test_the_default_set_is_that_of_the_released_models():
    tokens = SpecialTokens().all()
    assert len(tokens) == len(set(tokens)) == 100 + 4 + 224 + 2
    assert tokens[0] == "<img_00000>"
    assert tokens[99:105] == ["<img_00099>", "<img>", "</img>", "<patch>", "</patch>", "<loc-0>"]
    assert tokens[-3:] == ["<loc-223>", "<box_start>", "<box_end>"]


def test_spellings():
    assert slot_token(7) == "<img_00007>"
    assert location_token(7) == "<loc-7>"


def test_without_locations_there_are_no_box_tags():
    tokens = SpecialTokens(num_slots=2, num_locations=0).all()
    assert tokens == ["<img_00000>", "<img_00001>", "<img>", "</img>", "<patch>", "</patch>"]


@pytest.mark.parametrize("sizes", [(0, 10), (4, -1)])
def test_sizes_that_make_no_sense_are_refused(sizes):
    with pytest.raises(ConfigError, match="at least one slot"):
        SpecialTokens(num_slots=sizes[0], num_locations=sizes[1])


def test_added_tokens_follow_the_old_ones_and_are_found(plain):
    before = len(plain)
    added = add_special_tokens(plain, SpecialTokens(num_slots=3, num_locations=0))
    assert added == 7
    assert len(plain) == before + 7
    ids = ImageIds.of(plain)
    assert ids.slots == (before, before + 1, before + 2)
    assert (ids.begin, ids.end) == (before + 3, before + 4)
    assert (ids.patch_begin, ids.patch_end) == (before + 5, before + 6)
    assert ids.everything() == frozenset(range(before, before + 7))


def test_each_is_one_token_in_the_middle_of_text(plain):
    add_special_tokens(plain)
    ids = plain.encode("a<img>b<loc-3>", add_special_tokens=False)
    assert plain.convert_tokens_to_ids("<img>") == ids[1]
    assert plain.convert_tokens_to_ids("<loc-3>") == ids[-1]


def test_adding_twice_is_refused_and_changes_nothing(plain):
    add_special_tokens(plain, SpecialTokens(num_slots=3, num_locations=0))
    before = plain.get_vocab()
    with pytest.raises(ConfigError, match=r"already has <img_00000> and 6 more"):
        add_special_tokens(plain)
    assert plain.get_vocab() == before


def test_a_tokenizer_without_image_tokens_is_refused(plain):
    with pytest.raises(ConfigError, match=r"lacks <img>, </img>.*add_special_tokens"):
        ImageIds.of(plain)


def test_control_and_image_tokens_are_reserved(plain):
    add_special_tokens(plain, SpecialTokens(num_slots=2, num_locations=1))
    names = set(plain.convert_ids_to_tokens(sorted(reserved_ids(plain))))
    assert names == {"<pad>", "<s>", "</s>", *SpecialTokens(num_slots=2, num_locations=1).all()}


def test_added_words_and_the_unknown_token_are_not_reserved(plain):
    plain.add_tokens([AddedToken("    "), AddedToken("<think>")])
    plain.add_special_tokens({"unk_token": "<unk>"})
    free = set(plain.convert_tokens_to_ids(["    ", "<think>", "<unk>"]))
    assert free.isdisjoint(reserved_ids(plain))


def test_slots_that_another_vocabulary_added_as_words_are_reserved(plain):
    plain.add_tokens([AddedToken("<img_00000>"), AddedToken("<box_end>")])
    ids = set(plain.convert_tokens_to_ids(["<img_00000>", "<box_end>"]))
    assert ids <= reserved_ids(plain)


def test_tokens_of_boxes_may_be_spelt():
    tokenizer = train_tokenizer(["a"], vocab_size=300)
    assert box_ids(tokenizer) == frozenset()
    add_special_tokens(tokenizer, SpecialTokens(num_slots=2, num_locations=3))
    spelt = tokenizer.convert_ids_to_tokens(sorted(box_ids(tokenizer)))
    assert spelt == ["<loc-0>", "<loc-1>", "<loc-2>", "<box_start>", "<box_end>"]
    assert box_ids(tokenizer) < reserved_ids(tokenizer)


def test_one_token_may_stand_for_every_feature(plain):
    with pytest.raises(ConfigError, match=r"image_token=<image>.*no such token"):
        ImageIds.repeated(plain, "<image>")
    plain.add_tokens([AddedToken("<image>", special=True)])
    ids = ImageIds.repeated(plain, "<image>")
    (number,) = ids.slots
    assert plain.convert_ids_to_tokens(number) == "<image>"
    assert ids.block(3, patch=True) == ids.block(3, patch=False) == (number,) * 3
    assert (ids.tags, ids.num_slots, ids.everything()) == (frozenset(), None, {number})


def test_tags_stand_around_slots(plain):
    add_special_tokens(plain, SpecialTokens(num_slots=3, num_locations=0))
    ids = ImageIds.of(plain)
    assert ids.block(2, patch=False) == (ids.begin, *ids.slots[:2], ids.end)
    assert ids.block(2, patch=True) == (ids.patch_begin, *ids.slots[:2], ids.patch_end)
    assert ids.num_slots == 3
    assert ids.everything() == {*ids.slots, *ids.tags}
