import json
import re
from types import SimpleNamespace

import pytest
from PIL import Image

from mllm_npu.errors import ConfigError, DataError, RequestError
from mllm_npu.evaluate.runner import run_tasks
from mllm_npu.evaluate.tasks.geneval import GenEval, mean_over_tags
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.models.tiny import tiny_vision_encoder

ROWS = [
    {
        "tag": "single_object",
        "include": [{"class": "circle", "count": 1}],
        "prompt": "a photo of a circle",
    },
    {
        "tag": "colors",
        "include": [{"class": "square", "count": 1, "color": "red"}],
        "prompt": "a photo of a red square",
    },
    {
        "tag": "colors",
        "include": [{"class": "square", "count": 1, "color": "blue"}],
        "prompt": "a photo of a blue square",
    },
    {
        "tag": "counting",
        "include": [{"class": "star", "count": 2}],
        "exclude": [{"class": "star", "count": 3}],
        "prompt": "a photo of two stars",
    },
]


@pytest.fixture
def folder(tmp_path):
    def write(rows=ROWS):
        path = tmp_path / "evaluation_metadata.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path

    return write


class Painter:
    """Draws what a prompt says into the corner of a picture, and reads it there.

    Args:
        mistakes: prompts whose picture shows nothing.
        yes: says yes to everything it is asked by yes and no.
    """

    known = ("a photo of nothing", *(row["prompt"] for row in ROWS))

    def __init__(self, fakes, mistakes=(), *, yes=False):
        self.fakes, self.mistakes, self.yes = fakes, mistakes, yes

    def __call__(self, conversation, options):
        [turn] = conversation.turns
        if len(turn.parts) == 1:
            return self.draw(turn.parts[0].text, options)
        picture, question = turn.parts
        return self.fakes.make_reply(self.read(picture.picture, question.text))

    def draw(self, prompt, options):
        assert (options.images, options.max_new_tokens) == ("force", 1)
        number = 0 if (prompt, options.seed) in self.mistakes else self.known.index(prompt)
        return self.fakes.make_reply("", [Image.new("RGB", (16, 16), (number, 0, 0))])

    def read(self, picture, question):
        shown = self.known[picture.getpixel((0, 0))[0]]
        name = re.search(r"(circle|square|star)", question)[1]
        if question.startswith("How many"):
            return "2" if name in shown else "0"
        if question.startswith("What color"):
            return next((color for color in ("red", "blue") if color in shown), "gray")
        return "yes" if self.yes or name in shown else "no"


def make_engine(fakes, answer):
    engine = fakes.Oracle(answer)
    engine.max_batch = 4
    engine.model = SimpleNamespace(vision_encoder=tiny_vision_encoder())
    return engine


def run(fakes, folder, answer, **values):
    engine = make_engine(fakes, answer)
    task = GenEval(
        data=folder,
        engine=engine,
        options=GenerationOptions(seed=0),
        **{"pictures_per_prompt": 2, **values},
    )
    [result] = run_tasks([task], engine)
    return task, result, {figure.name: figure for figure in task.figures(result.records)}


def test_pictures_that_show_everything_are_right(fakes, folder):
    _, result, figures = run(fakes, folder(), Painter(fakes))
    assert [record.score for record in result.records] == [1.0] * 8
    assert list(figures) == [
        "geneval",
        "geneval/single_object",
        "geneval/colors",
        "geneval/counting",
        "geneval/pictures",
        "geneval/prompts",
        "geneval/control",
    ]
    assert {figure.value for figure in figures.values()} == {1.0}
    assert figures["geneval"].num == 8
    assert "weak evidence" in figures["geneval"].citation


def test_the_overall_score_is_the_mean_over_the_kinds(fakes, folder):
    """Wrong: one of two circles, one of four colored squares. Seeds are 0, 1 and 2, 3 and so on."""
    mistakes = [("a photo of a circle", 0), ("a photo of a red square", 3)]
    _, result, figures = run(fakes, folder(), Painter(fakes, mistakes))
    found = {name: figure.value for name, figure in figures.items()}
    assert found == {
        "geneval": round((1 / 2 + 3 / 4 + 1) / 3, 5),
        "geneval/single_object": 0.5,
        "geneval/colors": 0.75,
        "geneval/counting": 1.0,
        "geneval/pictures": 0.75,
        "geneval/prompts": 1.0,
        "geneval/control": 1.0,
    }
    assert result.records[0].understood == "wrong; a circle? no; control right: a square? no"
    assert result.records[2].understood.startswith("right; a square? yes; red square? red; ")
    low, high = figures["geneval"].interval
    assert low < found["geneval"] < high


def test_a_judge_that_affirms_everything_is_found_out(fakes, folder):
    everything = [(row["prompt"], seed) for row in ROWS for seed in range(8)]
    _, _, figures = run(fakes, folder(), Painter(fakes, everything, yes=True))
    assert figures["geneval/single_object"].value == 1.0
    assert figures["geneval/control"].value == 0.0
    assert figures["geneval/counting"].value == 0.0


def test_an_answer_that_cannot_be_read_counts_as_wrong_and_is_told(fakes, folder):
    painter = Painter(fakes)
    painter.read = lambda picture, question: "hm"
    _, result, figures = run(fakes, folder(), painter)
    assert figures["geneval"].value == 0.0
    assert figures["geneval"].num_unread == 8
    assert {record.understood for record in result.records} == {None}


def test_a_reply_without_a_picture_is_wrong_and_asks_nothing(fakes, folder):
    engine = make_engine(fakes, lambda conversation, options: fakes.make_reply("I cannot."))
    task = GenEval(data=folder(), engine=engine, options=GenerationOptions(), pictures_per_prompt=1)
    [result] = run_tasks([task], engine)
    assert {record.understood for record in result.records} == {"no picture"}
    assert len(engine.asked) == 4
    assert task.figures(result.records)[0].value == 0.0


def test_the_folders_of_the_official_evaluation_are_made(fakes, folder):
    task, result, _ = run(fakes, folder(), Painter(fakes))
    files = task.submissions(result.records)
    assert sorted(files)[:3] == [
        "geneval/00000/metadata.jsonl",
        "geneval/00000/samples/0000.png",
        "geneval/00000/samples/0001.png",
    ]
    assert json.loads(files["geneval/00003/metadata.jsonl"]) == ROWS[3]
    assert files["geneval/00001/samples/0000.png"] is result.records[2].reply.pictures[0]
    assert len(files) == 4 * 3


def test_another_run_may_judge(fakes, folder, monkeypatch):
    judge = make_engine(fakes, Painter(fakes, yes=True))
    monkeypatch.setattr(
        "mllm_npu.evaluate.tasks.geneval.judging_engine",
        lambda own, path: judge if path == "runs/judge" else own,
    )
    engine = make_engine(fakes, Painter(fakes))
    task = GenEval(
        data=folder(), engine=engine, options=GenerationOptions(seed=0), judge="runs/judge"
    )
    run_tasks([task], engine)
    assert {options.images for _, options in engine.asked} == {"force"}
    assert {options.images for _, options in judge.asked} == {"forbid"}


def test_prompts_are_asked_for_as_told(fakes, folder):
    engine = make_engine(fakes, None)
    task = GenEval(
        data=folder() / "evaluation_metadata.jsonl",
        engine=engine,
        options=GenerationOptions(seed=5),
        template="Draw {prompt}.",
        pictures_per_prompt=1,
    )
    first = task.examples()[0]
    assert first.conversation.turns[0].parts[0].text == "Draw a photo of a circle."
    assert (first.options.seed, first.groups) == (5, ("single_object",))
    with pytest.raises(ConfigError, match="names no object"):
        GenEval(
            data=folder(), engine=engine, options=GenerationOptions(), questions={"object": "?"}
        )


def test_files_of_another_form_are_refused(fakes, folder, tmp_path_factory):
    engine, options = make_engine(fakes, None), GenerationOptions()
    with pytest.raises(DataError, match=r"(?s)no evaluation_metadata\.jsonl.*counting"):
        GenEval(data=tmp_path_factory.mktemp("empty"), engine=engine, options=options)
    for row in (
        {"prompt": "a dog", "tag": "x"},
        {"prompt": "a dog", "include": [{"class": "dog"}]},
    ):
        with pytest.raises(DataError, match="'a dog' has no tag or no include"):
            GenEval(data=folder([ROWS[0], row]), engine=engine, options=options)


def test_a_model_that_cannot_draw_is_refused_before_it_is_asked(fakes, folder):
    engine = make_engine(fakes, Painter(fakes))
    engine.can_draw = False
    task = GenEval(data=folder(), engine=engine, options=GenerationOptions())
    with pytest.raises(RequestError, match="geneval asks for pictures, this model does not draw"):
        run_tasks([task], engine)
    assert engine.asked == []


def test_the_mean_over_tags_weighs_them_alike():
    assert mean_over_tags([("a", (1.0, 0.0)), ("a", (1.0, 1.0)), ("b", (0.0,))]) == 0.375
