"""Data are looked at and counted from the command line."""

import json

import pytest
from typer.testing import CliRunner

from mllm_npu.commands.data_inspect import app
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.errors import ConfigError


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder, scale=0.03)
    return ["experiment=digits/mllm", f"world_dir={folder}"]


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_inspect_writes_a_page_and_shows_the_data(overrides, tmp_path):
    page = tmp_path / "page.html"
    result = run("inspect", *overrides, "--out", page, "--samples", 5, "--packs", 1)
    html = page.read_text(encoding="utf-8")
    assert "Data of digits/mllm" in html
    assert html.count("<article") == 5
    assert html.count('<div class="pack">') == 1
    assert "instruction-train-" in result.stderr
    assert "samples of a pack" in result.stderr
    assert str(page) in result.stderr
    assert result.stdout == ""


def test_quiet_prints_the_name_of_the_page_alone(overrides, tmp_path):
    page = tmp_path / "page.html"
    result = run("inspect", *overrides, "--out", page, "--quiet", "--samples", 1, "--packs", 0)
    assert result.stderr.strip() == f"page: {page}"
    assert page.is_file()


def test_only_terminal_writes_nothing(overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("inspect", *overrides, "--only-terminal", "--source", "ocr", "--samples", 2)
    assert list(tmp_path.iterdir()) == []
    assert "ocr-train-" in result.stderr
    assert "instruction-train-" not in result.stderr


def test_a_seed_shows_other_samples(overrides):
    shown = [
        run("inspect", *overrides, "--only-terminal", "--packs", 0, "--seed", seed).stderr
        for seed in (0, 0, 1)
    ]
    assert shown[0] == shown[1] != shown[2]


def test_stats_are_one_line_of_json(overrides):
    result = run("stats", *overrides, "--json", "--all")
    (line,) = result.stdout.splitlines()
    told = json.loads(line)
    assert set(told["sources"]) == {"instruction", "caption", "ocr", "interleaved", "text"}
    assert told["windows"] == told["windows_in_epoch"]
    assert told["samples"] == told["samples_in_epoch"]
    assert told["packs"] * told["samples_per_pack"] == pytest.approx(told["samples"], rel=1e-3)


def test_stats_follow_the_overrides(overrides):
    small = [*overrides, "dataset.tokens_per_pack=512", "++dataset.plan_window=64"]
    told = json.loads(run("stats", *small, "--json", "--windows", 2).stdout)
    assert told["tokens_per_pack"]["limit"] == 512
    assert told["windows"] == 2 < told["windows_in_epoch"]
    assert told["samples"] < told["samples_in_epoch"]


def test_stats_show_tables(overrides):
    said = run("stats", *overrides).stderr
    assert "interleaved" in said
    assert "padding" in said


def test_the_quarantine_of_a_run_is_left_alone(overrides, tmp_path):
    listed = tmp_path / "quarantine.jsonl"
    run("stats", *overrides, f"++dataset.quarantine={listed}", "--json")
    assert not listed.exists()


def test_an_experiment_of_stages_is_refused(overrides):
    with pytest.raises(ConfigError, match="experiment=digits/vision"):
        run("stats", "experiment=digits", overrides[1])


def test_a_world_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Make it: mllm-npu data digits"):
        run("stats", "experiment=digits/mllm", f"world_dir={tmp_path / 'digits'}")


def test_another_kind_of_data_set_is_refused(overrides):
    other = ["dataset._target_=mllm_npu.data.pack_reader.PackReader", "~dataset.num_workers"]
    other.append("~dataset.quarantine")
    with pytest.raises(ConfigError, match="gives a PackReader, which has no plan"):
        run("stats", *overrides, *other)


def test_an_unknown_data_set_is_refused(overrides):
    with pytest.raises(ConfigError, match="'nothing' was asked for"):
        run("inspect", *overrides, "--only-terminal", "--source", "nothing")


@pytest.mark.parametrize("command", ["inspect", "stats"])
def test_help_has_examples(command):
    said = run(command, "--help").stdout
    assert "Examples" in said
    assert f"mllm-npu data {command} experiment=digits/mllm" in " ".join(said.split())
