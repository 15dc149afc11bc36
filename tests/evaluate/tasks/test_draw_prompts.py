import json
from types import SimpleNamespace

import pytest

from mllm_npu.errors import ConfigError, DataError, RequestError
from mllm_npu.evaluate.runner import run_tasks
from mllm_npu.evaluate.tasks import draw_prompts
from mllm_npu.evaluate.tasks.draw_prompts import PromptDrawing
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.models.tiny import tiny_vision_encoder

OPTIONS = GenerationOptions(seed=0)


@pytest.fixture
def prompts(tmp_path):
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "prompts.txt").write_text("a cup\na dog\n")
    return folder


@pytest.fixture
def real(fakes, tmp_path):
    folder = tmp_path / "real"
    folder.mkdir()
    for number in range(20):
        fakes.noise_picture(number).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def engine(fakes):
    """Draws noise by its seed; denies every third prompt's picture; says yes."""

    def answer(conversation, options):
        if options.images == "forbid":
            return fakes.make_reply("yes")
        if options.seed % 3 == 2:
            return fakes.make_reply("I cannot.")
        return fakes.make_reply("", [fakes.noise_picture(options.seed)])

    made = fakes.Oracle(answer)
    made.max_batch = 4
    made.model = SimpleNamespace(vision_encoder=tiny_vision_encoder().eval())
    return made


class FakeClip:
    """Scores a picture by the length of its text and its first pixel; counts its calls."""

    def __init__(self, *, path, device):
        self.path, self.device, self.calls = path, device, []

    def score(self, texts, pictures):
        self.calls.append(len(texts))
        pairs = zip(texts, pictures, strict=True)
        return [len(text) + picture.getpixel((0, 0))[0] / 256 for text, picture in pairs]


def run(engine, data, **values):
    task = PromptDrawing(
        data=data, engine=engine, options=OPTIONS, **{"pictures_per_prompt": 3, **values}
    )
    [result] = run_tasks([task], engine)
    return task, result, {figure.name: figure for figure in task.figures(result.records)}


def test_every_prompt_is_drawn_several_times(engine, prompts):
    task, result, figures = run(engine, prompts)
    assert task.title == "Prompts that were answered by a picture"
    assert [record.score for record in result.records] == [1, 1, 0, 1, 1, 0]
    assert [record.understood for record in result.records][1:3] == ["a picture", "no picture"]
    assert list(figures) == ["draw_prompts", "draw_prompts/drawn", "draw_prompts/spread"]
    assert figures["draw_prompts"].value == round(4 / 6, 5)
    assert figures["draw_prompts"].num_unread is None
    assert figures["draw_prompts/spread"].num == 4
    assert figures["draw_prompts/spread"].value > 0.3


def test_one_picture_has_no_spread(engine, prompts):
    _, _, figures = run(engine, prompts, pictures_per_prompt=1)
    assert list(figures) == ["draw_prompts", "draw_prompts/drawn"]


def test_clip_scores_pictures_by_their_prompts(engine, prompts, monkeypatch):
    monkeypatch.setattr(draw_prompts, "ClipScore", FakeClip)
    task, result, figures = run(engine, prompts, clip="clips/one", template="Draw {prompt}!")
    assert (task.clip.path, task.clip.device) == ("clips/one", engine.device)
    assert task.clip.calls == [4]
    scores = [
        0.0 if not r.reply.pictures else 5 + r.reply.pictures[0].getpixel((0, 0))[0] / 256
        for r in result.records
    ]
    assert [record.score for record in result.records] == pytest.approx(scores)
    assert figures["draw_prompts"].value == pytest.approx(sum(scores) / 6, abs=1e-5)
    assert "CLIP score" in figures["draw_prompts"].title
    assert result.records[0].understood == f"a picture; CLIP {scores[0]:.1f}"
    again = PromptDrawing(data=prompts, engine=engine, options=OPTIONS, clip="clips/one")
    first = result.records[0]
    assert again.score(first.example, first.reply) == pytest.approx(scores[0])


def test_checks_are_asked_where_every_prompt_has_some(engine, tmp_path):
    rows = [
        {"prompt": "a cup", "include": [{"class": "cup", "count": 1}]},
        {
            "prompt": "no dog",
            "checks": {"include": [{"class": "cat"}], "exclude": [{"class": "dog"}]},
        },
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task, result, figures = run(engine, path)
    assert task.title == "Drawn pictures that show what was asked for"
    assert [record.score for record in result.records] == [1, 1, 0, 0, 0, 0]
    assert result.records[0].understood == "right; a cup? yes; control wrong: a cat? yes"
    assert result.records[3].understood.startswith("wrong; a cat? yes; a dog? yes")
    assert figures["draw_prompts"].num_unread == 0
    assert figures["draw_prompts/control"].value == 0.0
    assert "draw_prompts/checks" not in figures


def test_checks_have_a_figure_of_their_own_beside_clip(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(draw_prompts, "ClipScore", FakeClip)
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"prompt": "a cup", "include": [{"class": "cup"}]}))
    _, result, figures = run(engine, path, clip="clips/one")
    assert result.records[0].score > 5
    assert figures["draw_prompts/checks"].value == round(2 / 3, 5)
    assert result.records[0].understood.startswith("right; a cup? yes; CLIP 5.")


def test_drawings_are_compared_with_real_pictures(engine, prompts, real, tmp_path):
    keep = tmp_path / "kept.safetensors"
    values = {"real": str(real), "keep": str(keep), "pictures_per_prompt": 15}
    _, _, figures = run(engine, prompts, **values)
    assert figures["draw_prompts/fid"].num == 20
    assert figures["draw_prompts/fid"].value > 0
    assert keep.is_file()
    _, _, again = run(engine, prompts, **values, distances=["kid"])
    assert again["draw_prompts/kid"] == figures["draw_prompts/kid"]
    assert "draw_prompts/fid" not in again


def test_another_encoder_may_see_them(engine, prompts, real):
    own = {"real": str(real), "pictures_per_prompt": 15}
    _, _, figures = run(engine, prompts, **own)
    _, _, others = run(engine, prompts, **own, encoder=tiny_vision_encoder("dinov2"))
    assert figures["draw_prompts/fid"].value != others["draw_prompts/fid"].value


def test_too_few_pictures_are_refused_before_any_is_drawn(engine, prompts, real, tmp_path):
    with pytest.raises(DataError, match=r"20 real and 8 drawn.*at least 17 of each"):
        PromptDrawing(data=prompts, engine=engine, options=OPTIONS, real=str(real))
    with pytest.raises(DataError, match="nothing is there"):
        PromptDrawing(data=prompts, engine=engine, options=OPTIONS, real=str(tmp_path / "no"))
    assert engine.asked == []


def test_a_short_look_gives_what_it_can(engine, prompts, real):
    task = PromptDrawing(
        data=prompts, engine=engine, options=OPTIONS, real=str(real), pictures_per_prompt=15
    )
    [result] = run_tasks([task], engine, limit=4)
    names = [figure.name for figure in task.figures(result.records)]
    assert "draw_prompts/kid" in names
    assert "draw_prompts/fid" not in names


def test_folders_without_one_file_of_prompts_are_refused(engine, prompts, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"(?s)there are 0 files of prompts.*prompts\.jsonl"):
        PromptDrawing(data=empty, engine=engine, options=OPTIONS)
    (prompts / "prompts.jsonl").write_text('{"prompt": "a cup"}')
    with pytest.raises(DataError, match="there are 2 files of prompts"):
        PromptDrawing(data=prompts, engine=engine, options=OPTIONS)


def test_what_cannot_be_used_is_refused_early(engine, prompts, tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json"):
        PromptDrawing(data=prompts, engine=engine, options=OPTIONS, clip=str(tmp_path))
    with pytest.raises(ConfigError, match=r"\{prompt\} in it"):
        PromptDrawing(data=prompts, engine=engine, options=OPTIONS, template="Draw")


def test_a_model_that_cannot_draw_is_refused(engine, prompts):
    engine.can_draw = False
    task = PromptDrawing(data=prompts, engine=engine, options=OPTIONS)
    with pytest.raises(RequestError, match="draw_prompts asks for pictures"):
        run_tasks([task], engine)
