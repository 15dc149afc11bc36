"""Benchmarks from the command line: killed and gone on with, on ranks, refused, and told about."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from mllm_npu.build import build_model
from mllm_npu.cli import main
from mllm_npu.config import load_config
from mllm_npu.evaluate.tasks.mmlu_subjects import SUBCATEGORIES
from mllm_npu.model_folder import save_model_folder

PER_SUBJECT = 3
NUM = PER_SUBJECT * len(SUBCATEGORIES)
WRITTEN = ("task.mmlu.by=generation", "generation.max_new_tokens=24")
# Times, and the threads that another load of the machine allows.
VARIES = re.compile(r'^ +"(?:made|evaluate_seconds|threads)": .*\n', re.MULTILINE)


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    for part in ("dev", "test"):
        (folder / "mmlu" / part).mkdir(parents=True)
    for subject in SUBCATEGORIES:
        solved = f"draw {subject[:3]}?,a seven,b,c,d,B\n"
        asked = [f"which {subject[:7]} {n}?,w,x,y,z,{'ABCD'[n % 4]}\n" for n in range(PER_SUBJECT)]
        (folder / "mmlu" / "dev" / f"{subject}_dev.csv").write_text(solved)
        (folder / "mmlu" / "test" / f"{subject}_test.csv").write_text("".join(asked))
    (folder / "reconstruction").mkdir()
    Image.new("RGB", (20, 20), "red").save(folder / "reconstruction" / "red.png")
    return folder


@pytest.fixture(scope="module")
def make_run(world, tmp_path_factory):
    """A run whose model was never trained."""

    def make(name, *overrides):
        folder = tmp_path_factory.mktemp("runs") / name
        config = load_config("training", [f"world_dir={world}", *overrides])
        save_model_folder(build_model(config), config, folder / "model")
        return folder

    return make


@pytest.fixture(scope="module")
def run(make_run):
    return make_run("tiny")


@pytest.fixture
def typed(run, benchmarks):
    return lambda *more, task="mmlu", run=run: [
        *("evaluate", str(run), f"task=[{task}]", f"data={benchmarks}"),
        *(("task.mmlu.shots=1",) if task == "mmlu" else ()),
        *map(str, more),
    ]


def answers(out):
    """Keys of all questions that were answered, in every file."""
    return [
        json.loads(line)["key"]
        for path in sorted((out / "answers").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def report_of(out):
    return VARIES.sub("", (out / "report.json").read_text())


def records_of(out):
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_a_run_is_evaluated_into_its_folder(run, typed, capsys):
    assert main(typed("--limit", 6)) == 0
    said = capsys.readouterr().err
    assert re.search(r"^mmlu +[\d.]+ .* 6", said, re.MULTILINE)
    assert f"report: {run / 'evaluation' / 'report.html'}" in said
    names = {path.name for path in (run / "evaluation").iterdir()}
    assert names == {"answers", "records.jsonl", "report.html", "report.json", "report.md"}
    report = json.loads((run / "evaluation" / "report.json").read_text())
    assert (report["model"], report["limit"]) == ("tiny", 6)
    assert [line["example"] for line in records_of(run / "evaluation")] == [
        *(f"abstract_algebra/{n}" for n in range(3)),
        *(f"anatomy/{n}" for n in range(3)),
    ]


def test_figures_are_one_line_for_machines(typed, tmp_path, capsys):
    assert main(typed("--limit", 2, "--json", "--out", tmp_path)) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["mmlu"] in (0.0, 0.5, 1.0)


def test_the_answers_of_a_model_folder_outlive_its_own_report(run, benchmarks, capsys):
    """The report lies inside the folder that tells one model from another."""
    inside = ["evaluate", str(run / "model"), "task=[mmlu]", "task.mmlu.shots=1"]
    for _ in range(2):
        assert main([*inside, f"data={benchmarks}", "--limit", "3"]) == 0
    assert len(answers(run / "model" / "evaluation")) == 3


def test_options_of_replies_are_those_of_the_model_unless_they_are_given(typed, tmp_path):
    assert main(typed("task.mmlu.by=generation", "--limit", 3, "--out", tmp_path)) == 0
    before = answers(tmp_path)
    assert main(typed("task.mmlu.by=generation", "--limit", 3, "--out", tmp_path)) == 0
    assert answers(tmp_path) == before
    changed = typed(*WRITTEN, "generation.max_new_tokens=2", "--limit", 3, "--out", tmp_path)
    assert main(changed) == 0
    assert len(answers(tmp_path)) == 6


def test_fresh_asks_again(typed, tmp_path):
    for more in ((), ("--fresh",)):
        assert main(typed("--limit", 3, "--out", tmp_path, *more)) == 0
        assert len(answers(tmp_path)) == 3


@pytest.fixture(scope="module")
def whole(run, benchmarks, tmp_path_factory):
    """An evaluation that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole")
    typed = ["evaluate", str(run), "task=[mmlu]", f"data={benchmarks}", "task.mmlu.shots=1"]
    assert main([*typed, *WRITTEN, "--out", str(out)]) == 0
    return out


def start(*program):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", *program],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def count_lines(out):
    return sum(path.read_bytes().count(b"\n") for path in (out / "answers").glob("*.jsonl"))


@pytest.mark.slow
def test_an_evaluation_that_was_killed_goes_on_to_what_it_would_have_said(whole, typed, tmp_path):
    command = typed(*WRITTEN, "--out", tmp_path)
    running = start("mllm_npu.cli", *command)
    try:
        deadline = time.monotonic() + 120
        while count_lines(tmp_path) < NUM // 2:
            assert running.poll() is None, running.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        running.kill()
        running.communicate()
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert not (tmp_path / "report.json").exists()
    known = count_lines(tmp_path)
    assert NUM // 2 <= known < NUM
    [file] = (tmp_path / "answers").glob("*.jsonl")
    with file.open("a") as half:
        half.write('{"key": "0123')
    assert main(command) == 0
    keys = answers(tmp_path)
    assert len(keys) == len(set(keys)) == NUM
    assert report_of(tmp_path) == report_of(whole)
    assert records_of(tmp_path) == records_of(whole)


@pytest.mark.slow
def test_two_ranks_say_what_one_says(whole, typed, tmp_path):
    ranks = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "mllm_npu.cli"]
    running = start(*ranks, *typed(*WRITTEN, "--out", tmp_path))
    try:
        _, said = running.communicate(timeout=200)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 0, said
    assert said.count("report: ") == 1
    files = sorted((tmp_path / "answers").glob("*.jsonl"))
    assert [path.name.rpartition("-")[2] for path in files] == ["0.jsonl", "1.jsonl"]
    assert [path.read_bytes().count(b"\n") for path in files] == [-(-NUM // 2), NUM // 2]
    assert len(set(answers(tmp_path))) == NUM
    assert report_of(tmp_path) == report_of(whole)
    assert records_of(tmp_path) == records_of(whole)


def test_questions_that_are_too_long_are_refused_counted_and_told(
    make_run, typed, tmp_path, capsys
):
    small = make_run("small", "processor.max_tokens=40", "dataset.tokens_per_pack=512")
    assert main(typed("--limit", 4, "--out", tmp_path, run=small)) == 1
    said = capsys.readouterr().err
    assert "mmlu: 4 questions were refused and count as wrong" in said
    assert "mmlu: 4 solved examples were left out" in said
    assert re.search(r"mmlu: the first refusal: .*max_tokens=40", said)
    assert all("refused" in line for line in records_of(tmp_path))


def test_solved_examples_make_room_for_the_question(make_run, typed, tmp_path, capsys):
    middling = make_run("middling", "processor.max_tokens=150", "dataset.tokens_per_pack=512")
    assert main(typed("--limit", 3, "--out", tmp_path, run=middling)) == 0
    said = capsys.readouterr().err
    assert "mmlu: 3 solved examples were left out" in said
    assert "refused" not in said


def test_a_reader_is_not_asked_to_draw(make_run, typed, tmp_path, capsys):
    reader = make_run("reader", "models=mllm_tiny", "objective=comprehension")
    assert main(typed("--out", tmp_path, task="mmlu,reconstruction", run=reader)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("RequestError: Task reconstruction asks for pictures")
    assert answers(tmp_path) == []
    assert not (tmp_path / "report.json").exists()


def test_two_tasks_of_one_name_are_refused(typed, tmp_path, capsys):
    assert main(typed("+task.again=${task.mmlu}", "--out", tmp_path)) == 2
    assert "Tasks ['mmlu', 'mmlu'] were asked for" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--fresh"], "ConfigError: --fresh was given without a task"),
        (["--out", "x"], "ConfigError: --out was given without a task"),
        (["task=[]"], "ConfigError: task=[] names no task"),
        (["data=x"], "ConfigError: data=x names no task"),
        (["task=[quiz]"], "Could not load 'task/quiz'"),
        (["task=[mmlu]", "generation.max_new_tokens=no"], "max_new_tokens='no' was asked for"),
    ],
)
def test_a_mistake_is_one_line(run, more, told, capsys):
    assert main(["evaluate", str(run), *more]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) == 1


def test_missing_files_are_answered_with_the_tree_that_is_expected(run, capsys):
    assert main(["evaluate", str(run), "task=[mmlu]", "data=nowhere"]) == 2
    first, *tree = capsys.readouterr().err.strip().splitlines()
    assert first.startswith("DataError: Benchmark files were asked for at nowhere/mmlu, nothing")
    assert any("── test/" in line for line in tree)
    assert "github.com/hendrycks/test" in tree[-1]


def test_ranks_are_for_benchmarks(run, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["evaluate", str(run)]) == 2
    assert "Several processes were started without a task" in capsys.readouterr().err


def test_a_run_without_model_says_how_to_get_one(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "task=[mmlu]"]) == 2
    assert "Train one: mllm-npu train" in capsys.readouterr().err


def test_a_shipped_model_is_evaluated_by_its_name_into_runs(
    benchmarks, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    typed = ["evaluate", "digits", "task=[mmlu]", f"data={benchmarks}", "task.mmlu.shots=0"]
    assert main([*typed, "--limit", "1", "--json"]) == 0
    capsys.readouterr()
    assert (tmp_path / "runs" / "shipped-digits" / "evaluation" / "report.json").is_file()


def test_its_world_is_made_before_it_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "digits"]) == 2
    assert "mllm-npu data digits --out data/digits" in capsys.readouterr().err
