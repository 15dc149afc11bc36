from random import Random

import pytest

from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import UNREADABLE_LENGTH, ShardSet, Source, check_source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.tasks.interleaved import Interleaved
from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.data.tasks.pure_text import PureText
from mllm_npu.errors import ConfigError, DataError


@pytest.fixture
def shards(tmp_path, make_row, png):
    for shard, count in enumerate((3, 0, 2)):
        rows = [
            make_row(f"{shard}-{n}", json_member={"caption": "a seven"}, png=png())
            for n in range(count)
        ]
        write_shard(tmp_path / f"train-{shard}.tar", rows)
    write_shard(tmp_path / "valid-0.tar", [make_row("v", txt=b"x")])
    return str(tmp_path / "train-*.tar")


def test_samples_of_all_shards_have_one_running_number(shards):
    found = ShardSet(shards=shards)
    assert [found.row(n).key for n in range(len(found))] == ["0-0", "0-1", "0-2", "2-0", "2-1"]
    assert found.path(2).endswith("train-0.tar")
    assert found.path(3).endswith("train-2.tar")
    for wrong in (-1, 5):
        with pytest.raises(IndexError):
            found.row(wrong)


def test_no_shards_is_an_error_that_shows_the_pattern(tmp_path):
    with pytest.raises(DataError, match=r"none-\*\.tar' were asked for, no file matches"):
        ShardSet(shards=str(tmp_path / "none-*.tar"))


def test_cached_rows_are_read_once(shards):
    cached, plain = ShardSet(shards=shards, cache_rows=True), ShardSet(shards=shards)
    assert cached.row(1) is cached.row(1)
    assert plain.row(1) is not plain.row(1)
    assert plain.row(1) == cached.row(1)
    assert cached.row(1).picture() is cached.row(1).picture()


def test_a_conversation_bears_the_sources_name(shards):
    source = Source(name="captions", shards=shards, task=Caption(), weight=2.0)
    talk = source.conversation(3, Random(0))
    assert (talk.source, talk.task, talk.key) == ("captions", "caption", "2-0")
    assert source.where(3).endswith("train-2.tar")
    assert (len(source), source.weight) == (5, 2.0)
    assert source.row(0).key == "0-0"


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("caption", Caption(read_prompts=["", "what?"], draw_prompts=["{caption}", "d {caption}"])),
        ("caption", Caption(chat=True)),
        ("ocr", Ocr()),
        ("ocr", Ocr(chat=False)),
        ("interleaved", Interleaved()),
        ("text", PureText()),
        ("instruction", Instruction(system="you are kind")),
    ],
)
def test_lengths_are_close_upper_bounds(digits_folder, digits_processor, kind, task):
    shards = str(digits_folder / kind / "train-*.tar")
    source = Source(name=kind, shards=shards, task=task)
    lengths = source.lengths(digits_processor)
    assert lengths.shape == (len(source),)
    slack = []
    for index in range(len(source)):
        for seed in range(3):
            talk = source.conversation(index, Random(seed))
            slack.append(int(lengths[index]) - digits_processor.encode(talk).num_tokens)
    assert min(slack) >= 0
    assert sum(slack) / len(slack) < 25


def test_a_row_that_cannot_be_measured_is_left_for_its_turn(tmp_path, make_row, processor):
    write_shard(tmp_path / "a.tar", [make_row("bad", json_member={}), make_row("ok", txt=b"seven")])
    lengths = Source(name="t", shards=str(tmp_path / "a.tar"), task=PureText()).lengths(processor)
    assert lengths[0] == UNREADABLE_LENGTH < lengths[1]


@pytest.mark.parametrize(("name", "weight"), [("", 1.0), ("x", -1.0), ("x", float("nan"))])
def test_nameless_and_weightless_sources_are_refused(name, weight):
    with pytest.raises(ConfigError):
        check_source(name, weight)
