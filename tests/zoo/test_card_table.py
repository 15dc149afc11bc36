"""Cards are shown so that one sees what there is and what to type."""

import io

import pytest
from rich.console import Console

from mllm_npu.zoo.card import card_names, find_card
from mllm_npu.zoo.card_table import (
    card_lines,
    cards_table,
    command_lines,
    short_bytes,
    short_number,
)


def shown(table, width=300):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue().splitlines()


def test_the_table_has_a_row_per_card():
    lines = shown(cards_table([find_card(name) for name in card_names()]))
    assert len(lines) == len(card_names()) + 1
    digits = next(line for line in lines if line.lstrip().startswith("digits"))
    assert "1.13 M" in digits
    assert "4.63 MB" in digits
    assert "this package" in digits
    llava = next(line for line in lines if "llava_1_5_7b" in line)
    assert "7.06 B" in llava
    assert "14.1 GB" in llava
    assert "llava-hf/llava-1.5-7b-hf" in llava


def test_names_are_whole_in_a_narrow_terminal():
    cards = [find_card(name) for name in card_names()]
    lines = shown(cards_table(cards), width=80)
    assert max(map(len, lines)) <= 80
    words = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert words == ["name", *card_names()]


@pytest.mark.parametrize("name", card_names())
def test_a_card_in_full_says_all_sections_and_commands(name):
    card = find_card(name)
    lines = list(card_lines(card))
    for section in ("source", "licence", "size", "commands", "files", "documentation"):
        assert section in lines or (section == "source" and not any(vars_of(card.source)))
    words = [line.split()[0] for line in command_lines(card)]
    assert "check" in words
    assert "ask" in words
    assert "train" in words
    assert ("get" in words) == bool(card.commands.get)


def vars_of(node):
    return [getattr(node, name) for name in node.__slots__]


def test_weights_are_told_in_every_width():
    lines = "\n".join(card_lines(find_card("llava_1_5_7b")))
    assert "28.3 GB in float32, 14.1 GB in bfloat16, 7.06 GB in int8" in lines
    assert "not measured" in lines
    assert "c11dbf016ee7d35ee130c19b67e20eb04873996006f424b7bcbd453b6517ee66" in lines
    assert "size not known  hash not known" in lines


def test_a_shipped_model_is_checked_without_a_folder():
    assert "check   mllm-npu zoo check digits" in list(command_lines(find_card("digits")))
    seedx = list(command_lines(find_card("seedx_instruct")))
    assert "check   mllm-npu zoo check seedx_instruct pretrained" in seedx
    nowhere = list(command_lines(find_card("mllm_npu_llama2_qwenvl_vit")))
    assert any(line.endswith("mllm_npu_llama2_qwenvl_vit pretrained") for line in nowhere)


@pytest.mark.parametrize(
    ("number", "words"), [(12, "12"), (1234, "1.23 k"), (1.5e6, "1.5 M"), (7063427072, "7.06 B")]
)
def test_numbers_are_short(number, words):
    assert short_number(number) == words


@pytest.mark.parametrize(
    ("number", "words"), [(12, "12 B"), (2293, "2.29 kB"), (4629255, "4.63 MB"), (5e9, "5 GB")]
)
def test_bytes_are_short(number, words):
    assert short_bytes(number) == words
