"""Data sets are made and indexed from the command line."""

import json

import pytest

from mllm_npu.cli import main
from mllm_npu.data.row import Row
from mllm_npu.data.shards import write_shard


def test_index_of_nothing_is_refused(capsys, tmp_path):
    assert main(["data", "index", str(tmp_path / "*.tar")]) == 2
    assert "no file matches" in capsys.readouterr().err


@pytest.fixture
def shards(tmp_path):
    rows = [Row(key=f"r{n}", members={"txt": b"which digit is this?"}) for n in range(3)]
    for shard in range(2):
        write_shard(tmp_path / f"t-{shard}.tar", rows)
    return tmp_path


def test_index_writes_what_is_missing(capsys, shards):
    assert main(["data", "index", f"{shards}/t-{{0..1}}.tar", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"samples": 6, "shards_built": 2, "breaks": []}
    assert main(["data", "index", f"{shards}/*.tar", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shards_built"] == 0


def test_index_shows_broken_places(capsys, shards):
    whole = (shards / "t-0.tar").read_bytes()
    (shards / "t-0.tar").write_bytes(whole[:1700])
    assert main(["data", "index", f"{shards}/*.tar", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["samples"] == 4
    assert "broken:" in told.err


def test_index_for_a_run_counts_its_tokens(capsys, shards, world):
    overrides = [
        "dataset=sft",
        "world_dir=null",
        f"tokenizer.path={world}/tokenizer",
        f"dataset.sources.0.shards={shards}/*.tar",
        "dataset.sources.0.task._target_=mllm_npu.data.tasks.pure_text.PureText",
    ]
    typed = [word for override in overrides for word in ("--for", override)]
    assert main(["data", "index", *typed, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["num_samples"], found["num_usable"]) == (6, 6)
    assert found["num_targets"] > 6
    assert list(shards.glob("*.forms-*"))


def test_index_wants_shards_or_a_run(capsys):
    assert main(["data", "index"]) == 2
    assert "give shards, or --for a run" in capsys.readouterr().err
