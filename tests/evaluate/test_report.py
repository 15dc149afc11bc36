import json
import re
from html.parser import HTMLParser

import pytest
import torch

from mllm_npu.errors import DataError
from mllm_npu.evaluate.figure import Figure, Target
from mllm_npu.evaluate.knob import Trial
from mllm_npu.evaluate.page import (
    Choice,
    Confusion,
    Gallery,
    Page,
    TileRow,
    make_tile,
    pick_examples,
)
from mllm_npu.evaluate.report import make_report, render_page, world_facts, write_report
from mllm_npu.evaluate.runner import TaskResult
from mllm_npu.evaluate.training_log import Stage
from mllm_npu.processing.conversation import ask

FIGURES = [
    Figure(
        name="draw_judged",
        title="Drawn digits",
        value=0.991,
        num=240,
        standard_error=0.004,
        target=Target(limit=0.98, side="least"),
        citation="A <b>bold</b> source",
    ),
    Figure(name="seconds", title="Time", value=500.0, target=Target(limit=420, side="most")),
]
STAGES = [
    Stage(
        name="vision",
        curves={"loss": [(1, 2.0), (2, 1.0)]},
        seconds=44.0,
        cpu_seconds=80.0,
        peak_rss_gib=1.2,
        steps=400,
    ),
    Stage(name="mllm", curves={}, seconds=None, cpu_seconds=None, peak_rss_gib=None, steps=7),
]


class Balanced(HTMLParser):
    """Fails on a tag that is not closed or closes another."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self):
        super().__init__()
        self.open = []
        self.sources = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def result(fakes):
    return fakes.make_result(("a", "a"), ("b", "<script>alert(1)</script>"))


@pytest.fixture
def page(fakes, result):
    trials = [Trial(guidance=g, image_steps=10, judged=0.9, num=9, tie_break=g / 7) for g in (1, 2)]
    tile = make_tile(fakes.noise_picture(0), "drawn", is_wrong=True)
    return Page(
        title="A <title>",
        lead="lead",
        galleries=[
            Gallery(
                title="Drawn",
                note="note",
                real_label="real",
                drawn_label="drawn",
                rows=[TileRow(label="7", real=[tile], drawn=[tile])],
            )
        ],
        confusions=[
            Confusion(
                title="Reading",
                row_label="a",
                column_label="b",
                labels=["0", "1"],
                counts=[[3, 1, 0], [0, 0, 0]],
            )
        ],
        examples=[pick_examples(result)],
        choices=[Choice(title="Drawing", tie_break="diversity", trials=trials, chosen=trials[1])],
    )


@pytest.fixture
def report():
    return make_report(
        figures=FIGURES,
        device=torch.device("cpu"),
        seconds=31.26,
        facts=world_facts("digits", {"drawing": {"rule": "r"}}, STAGES),
    )


def test_the_report_holds_every_figure_by_its_key(report):
    assert report["figures"] == {"draw_judged": 0.991, "seconds": 500.0}
    assert [figure["met"] for figure in report["details"]] == [True, False]
    assert report["evaluate_seconds"] == 31.3
    assert report["stages"][0] == {
        "name": "vision",
        "steps": 400,
        "seconds": 44.0,
        "cpu_seconds": 80.0,
        "peak_rss_gib": 1.2,
    }
    assert json.loads(json.dumps(report)) == report


def test_the_page_is_well_formed_and_needs_nothing_from_outside(report, page):
    html = render_page(report, page, STAGES)
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert parser.sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in parser.sources)
    assert not re.search(r"url\((?!#)", html)
    assert "<script" not in html


def test_texts_of_models_and_data_are_escaped(report, page):
    html = render_page(report, page, STAGES)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "A &lt;b&gt;bold&lt;/b&gt; source" in html
    assert "<h1>A &lt;title&gt;</h1>" in html


def test_the_page_says_what_was_met_chosen_and_wrong(report, page):
    html = render_page(report, page, STAGES)
    assert html.count('class="pill met"') == 1
    assert html.count('class="pill missed"') == 1
    assert html.count('<tr class="chosen">') == 1
    assert 'class="wrong"' in html
    assert "1 right, 1 wrong" in html
    assert html.count("<svg") == len(STAGES)


def test_a_page_with_little_to_show_is_a_page_too(page):
    empty = make_report(figures=[], device=torch.device("cpu"), seconds=0.0, facts={})
    html = render_page(empty, Page(title="t", lead="l"), [])
    assert "Training" not in html
    assert "What is taken for what" not in html


def test_files_are_written_whole(tmp_path, report, page, result):
    run = tmp_path / "runs" / "digits"
    write_report(run, report, page, stages=STAGES, results=[result])
    assert sorted(file.name for file in run.iterdir()) == [
        "pictures",
        "records.jsonl",
        "report.html",
        "report.json",
    ]
    assert json.loads((run / "report.json").read_text())["figures"] == report["figures"]
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    assert [(record["answer"], record["score"]) for record in records] == [("a", 1.0), ("b", 0.0)]
    assert records[0]["question"] == ["Say a"]
    assert records[0]["task"] == "echo"


def test_pictures_of_an_earlier_evaluation_go(tmp_path, report, page, result, fakes):
    write_report(tmp_path, report, page, results=[result])
    [red] = (tmp_path / "pictures").iterdir()
    record = fakes.make_record("a", "a", conversation=ask("q", [fakes.noise_picture(3)]))
    other = TaskResult(task=fakes.EchoTask([]), records=(record,))
    write_report(tmp_path, report, page, results=[other])
    [noise] = (tmp_path / "pictures").iterdir()
    assert noise.name != red.name
    assert noise.name in (tmp_path / "records.jsonl").read_text()


def test_half_a_character_in_a_benchmark_does_not_stop_the_report(tmp_path, report, page, fakes):
    record = fakes.make_record("\ud800", "a")
    result = TaskResult(task=fakes.EchoTask([]), records=(record,))
    shown = Page(title="\ud800", lead="l", examples=[pick_examples(result)])
    write_report(tmp_path, report, shown, results=[result])
    assert "Say ?" in (tmp_path / "records.jsonl").read_text(encoding="utf-8")


def nested_report(**facts):
    rows = [
        (0, "exam", 0.5),
        (1, "exam/stem", 0.4),
        (2, "exam/stem/maths", 0.3),
        (0, "mme", 1500.0),
    ]
    figures = [
        Figure(name=name, title=name, value=value, level=level, num=7, interval=(0.1, 0.9))
        for level, name, value in rows
    ]
    return make_report(figures=figures, device=torch.device("cpu"), seconds=0.0, facts=facts)


def test_figures_below_others_stand_in_a_tree_and_not_on_cards():
    html = render_page(nested_report(), Page(title="t", lead="l"))
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert html.count('class="card figure"') == 2
    assert html.count('class="card detail"') == 1
    assert html.count('<details class="branch">') == 1
    assert "stem" in html
    assert "width: 30.0%" in html


def test_what_could_not_be_asked_or_read_stands_on_the_page():
    task = {
        "name": "exam",
        "num": 7,
        "num_unread": 0,
        "num_refused": 2,
        "num_shots_dropped": 31,
        "first_refusal": "has <9> tokens",
    }
    html = render_page(nested_report(tasks=[task]), Page(title="t", lead="l"))
    assert "What could not be asked or read" in html
    assert "has &lt;9&gt; tokens" in html
    assert ">31<" in html
    good = {**task, "num_refused": 0, "num_shots_dropped": 0}
    html = render_page(nested_report(tasks=[good]), Page(title="t", lead="l"))
    assert "What could not be asked or read" not in html


def test_a_place_that_cannot_be_written_is_one_message(tmp_path, report, page, result):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(DataError, match=r"report\.json cannot be written"):
        write_report(tmp_path, report, page, stages=STAGES, results=[result])
    assert not list(tmp_path.glob("*.partial"))
