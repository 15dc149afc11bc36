"""Data sets are converted from the command line, tried without writing, and reported."""

import json

import pytest
import typer
from PIL import Image

from mllm_npu.commands import data_convert
from mllm_npu.data.convert.formats import FORMATS
from mllm_npu.errors import ConfigError, DataError


def run(*arguments):
    """The exit code of a command; refusals are raised as ``cli.main`` gets them."""
    command = typer.main.get_command(data_convert.app)
    code = command.main([str(one) for one in arguments], standalone_mode=False)
    return code if isinstance(code, int) else 0


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "album"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    lines = [{"image": name, "caption": "black"} for name in ("a.png", "gone.png")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_jsonl_becomes_shards_and_a_report(capsys, source, tmp_path):
    out = tmp_path / "out"
    assert run("convert", source / "rows.jsonl", "--out", out) == 0
    said = capsys.readouterr().err
    assert f"1 rows in {out}: 1 caption; shards: 1" in said
    assert f"1 not converted, see {out}/quarantine.jsonl" in said
    assert "picture file missing" in said
    assert (out / "00000-00000.tar").is_file()
    assert run("convert", source / "rows.jsonl", "--out", out) == 0
    assert "parts that were there already: 1 of 1" in capsys.readouterr().err


def test_machines_get_one_line(capsys, source, tmp_path):
    arguments = ("convert", source / "rows.jsonl", "--out", tmp_path / "out", "--json")
    assert run(*arguments, "--workers", 2) == 0
    printed = capsys.readouterr()
    values = json.loads(printed.out)
    assert printed.out.count("\n") == 1
    assert (values["rows"], values["refused"]) == (1, {"picture file missing": 1})
    assert values["out"] == str(tmp_path / "out")
    assert run("convert", source / "rows.jsonl", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["expected_rows"] == 2


def test_a_dry_run_writes_nothing(capsys, source, tmp_path):
    assert run("convert", source, "--dry-run") == 0
    said = capsys.readouterr().err
    assert "format: captions; parts: 1; rows: 2; shards: about" in said
    assert "refused: 1 x picture file missing" in said
    assert "example 0000000: png (" in said
    assert '{"caption": "black"}' in said
    assert "nothing was written" in said
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.png", "album", "rows.jsonl"]


def test_a_broken_source_fails_unless_it_is_tolerated(capsys, tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "whole"}, {"te')
    arguments = ("convert", tmp_path / "a.json", "--out", tmp_path / "out")
    assert run(*arguments) == data_convert.EXIT_BROKEN
    assert "broken: " in capsys.readouterr().err
    assert run(*arguments, "--tolerate-broken") == 0


def test_no_row_at_all_is_a_failure(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n')
    assert run("convert", tmp_path / "a.jsonl", "--out", tmp_path / "out") == 1


def test_options_reach_the_conversion(source, tmp_path, output_rows):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "x.jsonl").write_text('{"image": "a.png", "label": 1}\n')
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    arguments = [
        *("convert", tmp_path / "rows" / "x.jsonl", "--out", tmp_path / "out"),
        *("--images", source, "--class-names", tmp_path / "names.txt", "--format", "captions"),
        *("--rows-per-shard", 7, "--workers", 1),
    ]
    assert run(*arguments) == 0
    [row] = output_rows(tmp_path / "out")
    assert row.json()["caption"] == "dog"
    with pytest.raises(ConfigError, match="'lava'"):
        run("convert", source, "--out", tmp_path / "x", "--format", "lava")
    with pytest.raises(DataError, match="no such file"):
        run("convert", tmp_path / "nowhere", "--out", tmp_path / "x")


@pytest.fixture
def output_rows():
    from mllm_npu.data.index import read_rows

    return lambda out: [row for path in sorted(out.glob("*.tar")) for row in read_rows(path)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("convert", "."), "--out is missing"),
        (("convert", ".", "--out", "x", "--class-names", "/nowhere"), "--class-names /nowhere"),
        (("convert", ".", "--out", "x", "--draw-share", "3"), "draw-share"),
    ],
)
def test_wrong_options_are_explained(arguments, said):
    with pytest.raises(typer.BadParameter.__base__) as error:
        run(*arguments)
    assert said in error.value.format_message()


def test_the_help_has_an_example_for_every_format(capsys):
    assert run("convert", "--help") == 0
    said = capsys.readouterr().out
    assert said.count("mllm-npu data convert ") >= len(FORMATS)
    for option in ("--dry-run", "--images", "--workers", "--class-names", "--tolerate-broken"):
        assert option in said


def test_a_folder_of_pictures_becomes_shards(capsys, source, tmp_path):
    (source / "rows.jsonl").unlink()
    assert run("pictures", source, "--out", tmp_path / "shards") == 0
    assert "1 rows in" in capsys.readouterr().err
    assert (tmp_path / "shards" / "00000-00000.tar").is_file()


@pytest.mark.parametrize(
    ("num_bytes", "said"),
    [(999, "999 B"), (1000, "1 kB"), (34_700_000, "34.7 MB"), (2e12, "2e+03 GB")],
)
def test_sizes_are_short(num_bytes, said):
    assert data_convert._size(num_bytes) == said
