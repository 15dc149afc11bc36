import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from mllm_npu.commands import planning
from mllm_npu.errors import ConfigError

TINY = ["experiment=digits/mllm", "dataset.tokens_per_pack=256", "parallel=fsdp2",
        "cluster=h100_8", "plan.tries=0"]  # fmt: skip


@pytest.fixture
def run():
    """Runs the command."""

    def run_command(*arguments):
        return CliRunner().invoke(planning.app, list(arguments), catch_exceptions=True)

    return run_command


def test_a_real_dry_run_is_told_and_written(run, tmp_path):
    done = run(*TINY, "--json", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout.strip().splitlines()[-1])
    assert values["fits"]
    assert values["ranks"] == 8
    assert values["step"]["seconds"] > 0
    assert values["memory"]["at_peak"]["parameters"] > 0
    assert json.loads((tmp_path / "plan.json").read_text(encoding="utf-8")) == values
    assert "Plan of digits/mllm" in (tmp_path / "plan.html").read_text(encoding="utf-8")


def test_what_does_not_fit_is_exit_code_one(run):
    done = run(*TINY, "cluster.accelerator.memory_gib=0.01")
    assert done.exit_code == planning.EXIT_TOO_LARGE
    assert "does not fit" in done.stdout


def test_flags_are_handed_on(run, monkeypatch):
    asked = {}
    outcome = SimpleNamespace(fit=SimpleNamespace(fits=True))

    def make(overrides, **options):
        asked.update(options, overrides=overrides)
        options["bars"]("a label")(1, 2)
        return SimpleNamespace(outcome=outcome, as_values=lambda: {"made": True})

    monkeypatch.setattr("mllm_npu.plan.plan.make_plan", make)
    done = run("train.max_steps=5", "--search", "--goodput", "--json")
    assert json.loads(done.stdout) == {"made": True}
    assert asked["overrides"] == ["train.max_steps=5"]
    assert asked["with_search"]
    assert asked["with_fleet"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster.num_nodes=0", "cluster.num_nodes=0"),
        ("parallel.sequence_size=3", "sequence_size=3"),
        ("+cluster.nods=1", "num_nodes"),
        ("train.lrr=1", "lrr"),
    ],
)
def test_refusals_come_as_they_are(run, override, message):
    done = run(*TINY, override)
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)


def test_help_shows_examples(run):
    shown = run("--help").stdout
    assert "cluster=910b3_64" in shown
    assert "--search" in shown


def test_one_bar_follows_the_other():
    progress = planning.one_bar()
    assert [task.description for task in progress.tasks] == ["dry run"]
    move = planning.follow(progress, "dry runs")
    move(2, 5)
    assert [(task.description, task.completed, task.total) for task in progress.tasks] == [
        ("dry runs", 2, 5)
    ]
