"""Pieces hold every token once, and say of each what the sample says."""

import dataclasses
from random import Random

import pytest
import torch
from tokenizers import AddedToken

from mllm_npu.batch import IGNORED_LABEL
from mllm_npu.data.inspect.token_piece import PieceCutter, TokenPiece
from mllm_npu.errors import SkipSample
from mllm_npu.processing.chat_template import RAW
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn
from mllm_npu.processing.image_transform import open_picture
from mllm_npu.processing.joined_tiles import JoinedTiles
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def samples(batches, picks):
    """Everything that can be read."""
    found = []
    for pick in picks:
        try:
            found.append(batches.reader.read(pick))
        except SkipSample:
            continue
    return found


def say(processor, text):
    turn = Turn(role="document", parts=(Text(text=text),), learn=True)
    return processor.encode(Conversation(turns=(turn,)), rng=Random(0))


def test_every_token_is_in_exactly_one_piece(samples, cutter):
    assert len(samples) > 40
    for sample in samples:
        pieces = cutter.cut(sample)
        assert [number for piece in pieces for number in piece.ids] == sample.input_ids.tolist()
        assert [piece.begin for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
        assert pieces[0].begin == 0


def test_loss_is_where_the_labels_are(samples, cutter):
    for sample in samples:
        learnt = [piece.carries_loss for piece in cutter.cut(sample) for _ in piece.ids]
        assert learnt == (sample.labels != IGNORED_LABEL).tolist()


def test_a_first_token_carries_no_loss(processor, cutter):
    # Collating drops it as well: nothing comes before it that could predict it.
    sample = say(processor, "seven")
    sample = dataclasses.replace(sample, labels=sample.input_ids.clone())
    assert not cutter.cut(sample)[0].carries_loss
    assert all(piece.carries_loss for piece in cutter.cut(sample)[1:])


def test_slots_are_folded_by_tile(samples, cutter):
    kinds = set()
    for sample in samples:
        pieces = cutter.cut(sample)
        for kind, tiles, slots in (
            ("read", sample.read_tiles, sample.read_slots),
            ("drawn", sample.draw_tiles, sample.draw_slots),
        ):
            found = [piece for piece in pieces if piece.kind == kind]
            assert [piece.tile for piece in found] == tiles.tolist()
            assert [list(range(piece.begin, piece.end)) for piece in found] == slots.tolist()
            kinds.update(piece.kind for piece in found)
        assert all(piece.tile is None for piece in pieces if piece.kind not in ("read", "drawn"))
    assert kinds == {"read", "drawn"}


def test_tags_stand_around_slots(samples, cutter):
    for sample in samples:
        pieces = cutter.cut(sample)
        for number, piece in enumerate(pieces):
            if piece.kind in ("read", "drawn"):
                assert pieces[number - 1].text in ("<img>", "<patch>")
                assert pieces[number + 1].text in ("</img>", "</patch>")


def test_the_texts_of_pieces_are_the_text(processor, cutter):
    for text in ("a red circle at the top", "一条金鱼 🐟, naïve", " two  blanks\n\nand lines\t."):
        pieces = cutter.cut(say(processor, text))
        assert "".join(piece.text for piece in pieces if piece.kind == "text") == text


def test_tokens_of_one_character_are_one_piece(processor, cutter):
    pieces = [piece for piece in cutter.cut(say(processor, "x鱼y")) if piece.kind == "text"]
    assert [piece.text for piece in pieces] == ["x", "鱼", "y"]
    assert len(pieces[1].ids) == 3


def test_bytes_that_are_no_character_are_shown_all_the_same(tokenizer, cutter, processor):
    sample = say(processor, "x")
    broken = tokenizer.encode("鱼", add_special_tokens=False)[:2]
    ids = torch.tensor([*sample.input_ids.tolist()[:-1], *broken])
    sample = dataclasses.replace(sample, input_ids=ids, labels=ids.clone())
    pieces = cutter.cut(sample)
    assert [number for piece in pieces for number in piece.ids] == ids.tolist()
    assert all(piece.text for piece in pieces)


def test_control_tokens_and_places_have_their_kinds(make_processor):
    tokenizer = train_tokenizer(["a box"] * 3, vocab_size=300)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=4, num_locations=8))
    processor = make_processor(tokenizer)
    text = "a box <box_start><loc-1><loc-2><loc-3><loc-4><box_end>"
    pieces = PieceCutter(tokenizer=tokenizer).cut(say(processor, text))
    assert [piece.text for piece in pieces if piece.kind == "control"] == ["<s>", "</s>"]
    assert [piece.text for piece in pieces if piece.kind == "location"] == [
        "<box_start>",
        "<loc-1>",
        "<loc-2>",
        "<loc-3>",
        "<loc-4>",
        "<box_end>",
    ]


def test_tags_have_their_kind(processor, cutter, png):
    from mllm_npu.processing.image_transform import open_picture

    picture = ReadImage(picture=open_picture(png(32, 16)))
    turn = Turn(role="document", parts=(picture, Text(text="two")), learn=True)
    pieces = cutter.cut(processor.encode(Conversation(turns=(turn,))))
    tags = [piece.text for piece in pieces if piece.kind == "tag"]
    assert tags == ["<patch>", "</patch>"] * 2 + ["<img>", "</img>"]


def piece(text, kind="text", count=1):
    return TokenPiece(begin=0, ids=(7,) * count, text=text, kind=kind, carries_loss=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" the", " the"),
        (" ", "␣"),
        ("  ", "␣␣"),
        (".\n", ".⏎"),
        ("\t", "⇥"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202eabc", "\\u202eabc"),
        ("鱼", "鱼"),
    ],
)
def test_what_cannot_be_seen_has_a_sign(text, shown):
    assert piece(text).shown == shown


def test_folded_slots_say_how_many():
    assert piece("<img_00000>", "read", 64).shown == "img x64"
    assert piece("<img_00000>", "drawn", 16).shown == "draw x16"


def joined_sample(png):
    tokenizer = train_tokenizer(["two pictures"] * 3, vocab_size=300)
    tokenizer.add_tokens([AddedToken("<image>", special=True)])
    processor = Processor(
        tokenizer=tokenizer,
        any_resolution=JoinedTiles(grids=["1x1", "2x1"], tile_size=16),
        chat_template=RAW,
        num_read_tokens=4,
        num_drawn_tokens=0,
        max_tokens=200,
        image_token="<image>",
    )
    parts = (
        ReadImage(picture=open_picture(png(32, 16))),
        Text(text="two"),
        ReadImage(picture=open_picture(png(16, 16))),
    )
    turn = Turn(role="document", parts=parts, learn=True)
    return processor, processor.encode(Conversation(turns=(turn,)))


def test_all_tokens_of_joined_tiles_are_one_piece_of_their_whole_picture(png):
    processor, sample = joined_sample(png)
    cutter = PieceCutter(tokenizer=processor.tokenizer, image_ids=processor.image_ids)
    pieces = [piece for piece in cutter.cut(sample) if piece.kind == "read"]
    assert [(piece.shown, piece.tile) for piece in pieces] == [("img x14", 2), ("img x10", 4)]
    assert not [piece for piece in cutter.cut(sample) if piece.kind == "tag"]
