"""Two sides are compared from the command line, and the exit code says whether they agree."""

import json

import pytest
import typer
from typer.testing import CliRunner

from mllm_npu.cli import main
from mllm_npu.commands.console import console
from mllm_npu.commands.parity import add_parity
from mllm_npu.data.worlds.digits import make_digits


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder, scale=0.02)
    return [
        *("experiment=digits/mllm", f"world_dir={folder}", "initialise_from=null", "threads=1"),
        *("dataset.tokens_per_pack=256", f"output_dir={folder}"),
    ]


@pytest.fixture(scope="module")
def app():
    app = typer.Typer()
    app.command("other")(lambda: None)
    add_parity(app)
    return app


def run(app, *words):
    result = CliRunner().invoke(app, ["parity", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_sides_that_agree_exit_with_nought(app, overrides, tmp_path):
    page = tmp_path / "page.html"
    result = run(app, "cpu", "reference", *overrides, "--out", page)
    assert result.exit_code == 0, result.output
    assert "agree: " in result.stderr
    assert f"page: {page}" in result.stderr
    assert "Parity of digits/mllm" in page.read_text(encoding="utf-8")
    assert result.stdout == ""


def test_the_verdict_is_one_line_however_narrow_the_terminal(app, overrides, monkeypatch):
    monkeypatch.setattr(console, "_width", 40)
    result = run(app, "cpu", "reference", *overrides, "--rtol", "0")
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("first divergence")]
    assert "over bound 0.0e+00" in line


def test_sides_that_part_exit_with_one(app, overrides):
    result = run(app, "cpu", "reference", *overrides, "--rtol", "0", "--json")
    assert result.exit_code == 1
    (line,) = result.stdout.splitlines()
    told = json.loads(line)
    assert told["agrees"] is False
    assert told["verdict"][0].startswith("first divergence: ")
    assert [side["side"] for side in told["sides"]] == ["cpu", "reference"]


def test_one_side_is_recorded(app, overrides, tmp_path):
    path = tmp_path / "a.safetensors"
    result = run(app, "cpu", *overrides, "--record", path)
    assert result.exit_code == 0
    assert f"record: {path}" in result.stderr
    assert run(app, path, "cpu", *overrides).exit_code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cpu"], "1 sides were given (cpu)"),
        (["cpu", "cpu", "cpu"], "3 sides were given"),
        (["seed=1"], "0 sides were given (none)"),
    ],
)
def test_another_number_of_sides_is_refused(app, words, told):
    result = run(app, *words)
    assert result.exit_code == 2
    assert told in " ".join(result.output.split()).replace("│ ", "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cpu", "moon"], "ConfigError: 'moon' was asked for as a side"),
        (["cpu", "npu"], "DeviceError: device='npu' was asked for"),
        (["cpu", "cpu", "experiment=digits"], "such as experiment=digits/vision"),
    ],
)
def test_a_mistake_is_one_line_and_exits_with_two(words, told, capsys):
    assert main(["doctor", "parity", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) == 1


def test_help_has_examples(app):
    said = run(app, "--help").stdout
    assert "Examples" in said
    assert "mllm-npu doctor parity runs/a runs/b" in " ".join(said.split())
