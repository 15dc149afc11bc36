from random import Random

import pytest

from mllm_npu.data.shards import write_shard
from mllm_npu.data.source import Source, check_source
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.data.tasks.instruction import Instruction
from mllm_npu.data.tasks.interleaved import Interleaved
from mllm_npu.data.tasks.ocr import Ocr
from mllm_npu.data.tasks.pure_text import PureText
from mllm_npu.errors import ConfigError


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
def test_planned_lengths_are_those_of_the_samples(digits_folder, digits_processor, kind, task):
    shards = str(digits_folder / kind / "train-*.tar")
    source = Source(name=kind, shards=shards, task=task)
    rule, resolution = digits_processor.length_rule, digits_processor.any_resolution
    index = 0
    for shard, size in enumerate(source.shard_sizes.tolist()):
        table = source.forms(shard, digits_processor)
        lengths, tiles = table.tokens(rule, resolution), table.tiles(resolution)
        assert len(table) == size
        for place in range(size):
            for form in range(table.first[place], table.first[place + 1]):
                number = form - table.first[place]
                talk = source.conversation(index, Random(0), number)
                sample = digits_processor.encode(talk)
                assert (sample.num_tokens, len(sample.tiles)) == (lengths[form], tiles[form])
            index += 1


def test_forms_are_measured_once_and_kept_beside_the_shard(shards, processor, monkeypatch):
    source = Source(name="s", shards=shards, task=Caption())
    table = source.forms(0, processor)
    again = Source(name="s", shards=shards, task=Caption())
    monkeypatch.setattr(again._shards, "row", None)  # reading a row would fail
    assert again.forms(0, processor).text.tolist() == table.text.tolist()
    assert again.totals(0, processor) == table.totals()
    assert again.forms(1, processor).first.tolist() == [0]


def test_forms_of_another_task_or_tokenizer_are_others(shards, processor, tmp_path):
    Source(name="s", shards=shards, task=Caption()).forms(0, processor)
    Source(name="s", shards=shards, task=Caption(draw_share=0)).forms(0, processor)
    assert len(list(tmp_path.glob("train-0.tar.forms-*"))) == 2


def test_forms_of_a_changed_shard_are_measured_anew(shards, processor, tmp_path, make_row, png):
    Source(name="s", shards=shards, task=Caption()).forms(0, processor)
    row = make_row("new", json_member={"caption": "a red circle at the top left"}, png=png())
    write_shard(tmp_path / "train-0.tar", [row])
    assert len(Source(name="s", shards=shards, task=Caption()).forms(0, processor)) == 1


def test_a_row_that_cannot_be_measured_is_left_for_its_turn(tmp_path, make_row, processor):
    write_shard(tmp_path / "a.tar", [make_row("bad", json_member={}), make_row("ok", txt=b"seven")])
    source = Source(name="t", shards=str(tmp_path / "a.tar"), task=PureText())
    assert source.forms(0, processor).first.tolist() == [0, 0, 1]
    assert source.totals(0, processor).num_samples == 1


def test_the_fingerprint_tells_shards_and_tasks_apart(shards):
    prints = {
        Source(name="s", shards=shards, task=Caption()).fingerprint(),
        Source(name="s", shards=shards, task=Caption(draw_share=0.2)).fingerprint(),
        Source(name="s", shards=shards.replace("*", "0"), task=Caption()).fingerprint(),
    }
    assert len(prints) == 3
    assert Source(name="other", shards=shards, task=Caption()).fingerprint() in prints


@pytest.mark.parametrize(("name", "weight"), [("", 1.0), ("x", -1.0), ("x", float("nan"))])
def test_nameless_and_weightless_sources_are_refused(name, weight):
    with pytest.raises(ConfigError):
        check_source(name, weight)
