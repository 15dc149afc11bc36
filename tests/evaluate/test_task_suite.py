"""An evaluation by benchmarks: its files, how it goes on, what its report does not depend on."""

import json
import re
from dataclasses import replace
from random import Random

import pytest
from PIL import Image

from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import ConfigError, RequestError, TooLongError
from mllm_npu.evaluate.task_suite import evaluate_tasks
from mllm_npu.inference.events import Likelihood
from mllm_npu.processing.conversation import ask

TIMES = re.compile(r'^ "(?:made|evaluate_seconds)": .*\n', re.MULTILINE)


@pytest.fixture
def engine(fakes):
    """Says what it is asked for, draws where it is asked to, refuses what is long."""

    def answer(conversation, options):
        said = conversation.turns[-1].parts[-1].text.removeprefix("Say ")
        if said == "long":
            raise TooLongError("it has 9 tokens")
        pictures = [fakes.noise_picture(options.seed)] if said == "picture" else []
        return fakes.make_reply({"hard": "wrong"}.get(said, said), pictures)

    return fakes.Oracle(answer)


@pytest.fixture
def task(fakes):
    def make(answers, name="echo"):
        made = fakes.EchoTask(answers)
        made.name = name
        return made

    return make


def run(engine, tasks, out, **changes):
    values = {"name": "tiny", "model": "m-cpu"}
    return evaluate_tasks(engine, tasks, out=out, **{**values, **changes})


def report_of(out):
    """The bytes of a report, apart from its times."""
    return TIMES.sub("", (out / "report.json").read_text())


def records_of(out):
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_figures_records_pages_and_counts_are_written(engine, task, tmp_path):
    report = run(engine, [task(["a", "hard", "long"]), task("b", "other")], tmp_path)
    assert report["figures"] == {"echo": 0.33333, "other": 1.0}
    assert (report["model"], report["limit"]) == ("tiny", None)
    first, second = report["tasks"]
    assert first == {
        "name": "echo",
        "title": "Says it again",
        "citation": "none",
        "num": 3,
        "num_unread": 0,
        "num_refused": 1,
        "first_refusal": "it has 9 tokens",
        "num_shots_dropped": 0,
        "submissions": [],
    }
    assert second["num_refused"] == 0
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert "1 questions refused" in (tmp_path / "report.md").read_text()
    assert "tiny: echo, other" in (tmp_path / "report.html").read_text()
    assert [line["example"] for line in records_of(tmp_path)] == ["e0", "e1", "e2", "e0"]
    assert records_of(tmp_path)[2]["refused"] == "it has 9 tokens"


def test_what_an_official_evaluation_takes_is_written_below_its_names(engine, task, tmp_path):
    made = task("ab")
    picture = Image.new("RGB", (3, 2), "red")
    made.submissions = lambda records: {
        "echo.json": json.dumps([record.reply.text for record in records]),
        "pictures/0.png": picture,
    }
    report = run(engine, [made], tmp_path)
    assert report["tasks"][0]["submissions"] == ["echo.json", "pictures/0.png"]
    assert json.loads((tmp_path / "submissions" / "echo.json").read_text()) == ["a", "b"]
    with Image.open(tmp_path / "submissions" / "pictures" / "0.png") as written:
        assert written.size == (3, 2)


@pytest.mark.parametrize("names", [[], ["echo", "echo"]])
def test_tasks_need_names_that_differ(engine, task, tmp_path, names):
    with pytest.raises(ConfigError, match="with names that differ"):
        run(engine, [task("a", name) for name in names], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_drawing_task_on_a_reader_leaves_no_report(engine, task, tmp_path):
    made = task("a")
    made.needs_drawing = True
    engine.can_draw = False
    with pytest.raises(RequestError, match="does not draw"):
        run(engine, [made], tmp_path)
    assert engine.asked == []
    assert not (tmp_path / "report.json").exists()


def test_an_evaluation_that_is_whole_asks_nothing_and_says_the_same(engine, task, tmp_path):
    tasks = [task(["a", "hard", "picture", "long"])]
    run(engine, tasks, tmp_path)
    first, asked = report_of(tmp_path), len(engine.asked)
    files = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    run(engine, tasks, tmp_path)
    assert report_of(tmp_path) == first
    assert len(engine.asked) == asked
    assert {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()} == files


def test_fresh_asks_all_again_and_another_model_too(engine, task, tmp_path):
    tasks = [task("abc")]
    run(engine, tasks, tmp_path)
    run(engine, tasks, tmp_path, model="m-npu")
    assert len(engine.asked) == 6
    run(engine, tasks, tmp_path, fresh=True)
    assert len(engine.asked) == 9
    assert len(list((tmp_path / "answers").glob("*.jsonl"))) == 1


def test_a_limit_is_a_part_of_the_whole(engine, task, tmp_path):
    run(engine, [task("abcd")], tmp_path, limit=2)
    report = run(engine, [task("abcd")], tmp_path)
    assert len(engine.asked) == 4
    assert (report["limit"], report["tasks"][0]["num"]) == (None, 4)


def test_several_ranks_say_what_one_says(engine, task, tmp_path, monkeypatch):
    monkeypatch.setattr(Mesh, "barrier", lambda self: None)
    tasks = [task(["a", "hard", "picture", "long", "b", "c"]), task("de", "other")]
    run(engine, tasks, tmp_path / "one")
    asked = len(engine.asked)
    for rank in (2, 1, 0):
        report = run(engine, tasks, tmp_path / "three", mesh=Mesh(rank=rank, world_size=3))
        assert (report is None) == (rank > 0)
    assert report_of(tmp_path / "three") == report_of(tmp_path / "one")
    assert records_of(tmp_path / "three") == records_of(tmp_path / "one")
    # A refusal is looked for by halves, so that its neighbours are put more than once.
    answered = (tmp_path / "three" / "answers").glob("*.jsonl")
    assert sum(len(path.read_text().splitlines()) for path in answered) == 8
    assert asked >= 8


class Choosing:
    """Weighs three choices, of which two are equal; what is weighed beside them moves last bits.

    Args:
        seed: of those bits.
    """

    can_draw = False

    def __init__(self, device, seed):
        self.device, self.random = device, Random(seed)

    def fits(self, conversation, room):
        return True

    def weigh(self, questions):
        for number, (_, texts) in enumerate(questions):
            values = (-2.0, -1.00005, -1.00005)
            yield (
                number,
                tuple(
                    Likelihood(
                        text=text,
                        logprob=value + self.random.uniform(-3e-6, 3e-6),
                        num_tokens=1,
                        is_greedy=False,
                    )
                    for text, value in zip(texts, values, strict=True)
                ),
            )


def test_last_bits_of_likelihoods_do_not_reach_the_report(task, fakes, tmp_path):
    examples = [
        fakes.make_example("y", n, conversation=ask(f"q{n}"), choices=("x", "y", "z"))
        for n in range(40)
    ]
    made = task([])
    made.examples = lambda: examples
    for seed in range(3):
        run(Choosing(fakes.CPU, seed), [made], tmp_path / str(seed))
    reports = {report_of(tmp_path / str(seed)) for seed in range(3)}
    assert len(reports) == 1
    assert '"echo": 1.0' in reports.pop()


def test_shots_that_were_left_out_are_counted(task, fakes, tmp_path):
    put = replace(
        ask("s1"), turns=(replace(ask("s1").turns[0], parts=(*_texts("s1", "s2", "q"),)),)
    )
    example = fakes.make_example("x", conversation=put, choices=("x", "y", "z"), num_shots=2)
    made = task([])
    made.examples = lambda: [example]
    engine = Choosing(fakes.CPU, 0)
    engine.fits = lambda conversation, room: len(conversation.turns[0].parts) < 3
    report = run(engine, [made], tmp_path)
    assert report["tasks"][0]["num_shots_dropped"] == 1
    assert records_of(tmp_path)[0]["question"] == ["s1", "q"]


def _texts(*texts):
    return [part for text in texts for part in ask(text).turns[0].parts]
