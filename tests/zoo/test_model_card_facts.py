"""What a run left behind is read for its card, and no place of the machine with it."""

import json
import shutil

import pytest
from PIL import Image

from mllm_npu.config import load_config, write_config
from mllm_npu.errors import ConfigError
from mllm_npu.zoo.model_card_facts import RunFacts, read_examples, read_run

REPORT = {
    "world": "digits",
    "details": [
        {"name": "accuracy", "title": "Read", "value": 0.9, "interval": [0.8, 1.0], "num": 10},
        {"name": "below", "title": "A category", "value": 0.5, "level": 1},
        {"name": "nothing", "title": "Not measured", "value": None},
    ],
    "machine": {"processor": "one", "cores": 2},
    "versions": {"torch": "2"},
}


@pytest.fixture
def run(world, tmp_path):
    """A run of one stage, evaluated."""
    stage = tmp_path / "run" / "decoder"
    (stage / "model").mkdir(parents=True)
    config = load_config(
        "training",
        [
            "experiment=digits/decoder",
            f"world_dir={world}",
            "initialise_from=/far/away/runs/digits/mllm/model",
        ],
    )
    write_config(config, stage / "config.yaml")
    (stage / "summary.json").write_text(json.dumps({"steps": 5, "seconds": 1.5}))
    (stage.parent / "report.json").write_text(json.dumps(REPORT))
    return stage.parent


@pytest.mark.parametrize("named", [".", "decoder", "decoder/model"])
def test_a_run_is_read_from_wherever_it_is_named(run, named):
    facts = read_run(run / named, run / "decoder" / "model")
    assert facts.folder is not None
    assert facts.folder.resolve() == run
    assert [stage.name for stage in facts.stages] == ["decoder"]
    [figure] = facts.figures
    assert (figure.title, figure.value, figure.interval, figure.num) == (
        "Read",
        0.9,
        (0.8, 1.0),
        10,
    )
    assert facts.world == "digits"


def test_a_stage_says_its_recipe_and_where_it_began_without_the_machine(run):
    [stage] = read_run(run, run / "decoder" / "model").stages
    assert (stage.steps, stage.seconds, stage.lr, stage.seed) == (5, 1.5, 2.0e-3, 0)
    assert stage.start == "mllm/model"
    assert dict(stage.sources) == {"caption": 1.0}
    assert stage.tokens_per_pack > 0


def test_a_stage_that_is_not_finished_says_what_it_was_to_do(run):
    (run / "decoder" / "summary.json").unlink()
    [stage] = read_run(run, run / "decoder" / "model").stages
    assert (stage.steps, stage.seconds) == (600, None)


def test_a_model_alone_has_no_facts(run, tmp_path):
    alone = tmp_path / "elsewhere" / "deeper" / "model"
    shutil.copytree(run / "decoder" / "model", alone)
    assert read_run(alone, alone) == RunFacts()


def test_a_broken_report_is_told(run):
    (run / "report.json").write_text("{")
    with pytest.raises(ConfigError, match=r"report\.json cannot be read"):
        read_run(run, run / "decoder" / "model")


def test_examples_come_with_their_pictures_or_not_at_all(run):
    (run / "pictures").mkdir()
    Image.new("L", (4, 4)).save(run / "pictures" / "seen.png")
    rows = [
        {"question": ["Which?"], "reply": "one", "answer": "two", "score": 0.0,
         "pictures_read": ["seen.png"]},
        {"question": ["Draw."], "reply": "", "answer": "3", "score": 1.0,
         "pictures_drawn": ["gone.png"]},
        {"question": ["a", "b"], "reply": "c", "score": 1.0},
    ]  # fmt: skip
    (run / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read_examples(run)
    assert (first.question, first.reply, first.answer, first.is_right) == (
        "Which?",
        "one",
        "two",
        False,
    )
    assert first.read == (run / "pictures" / "seen.png",)
    assert (second.question, second.is_right, second.read) == ("a b", True, ())


def test_a_run_without_records_has_no_examples(run):
    assert list(read_examples(run)) == []
