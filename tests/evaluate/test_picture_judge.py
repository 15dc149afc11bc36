from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.evaluate import picture_judge
from mllm_npu.evaluate.picture_checks import control_check, make_checks, read_checks
from mllm_npu.evaluate.picture_judge import Case, PictureJudge, judging_engine, read_verdict
from mllm_npu.processing.conversation import ReadImage, Text

CHECKS = make_checks(
    read_checks({"include": [{"class": "dog", "count": 1}, {"class": "cup", "count": 2}]}, "here")
)


@pytest.fixture
def judge(fakes):
    """Answers a question by what it asks for; remembers what it was asked."""

    def make(**answers):
        def answer(conversation, options):
            [turn] = conversation.turns
            question = turn.parts[-1].text
            said = next(text for word, text in answers.items() if word in question)
            return fakes.make_reply(said)

        return PictureJudge(engine=fakes.Oracle(answer))

    return make


def case(fakes, seed=1, **changes):
    return Case(picture=fakes.noise_picture(seed), checks=CHECKS, **changes)


def test_all_checks_must_be_passed(judge, fakes):
    [verdict] = judge(dog="yes", cups="2").judge([case(fakes)])
    assert (verdict.is_right, verdict.is_read, verdict.denies) == (True, True, None)
    assert verdict.words == "right; a dog? yes; how many cups? 2"
    [verdict] = judge(dog="yes", cups="1").judge([case(fakes)])
    assert (verdict.is_right, verdict.is_read) == (False, True)
    assert verdict.words.startswith("wrong; ")


def test_an_answer_that_cannot_be_read_is_not_right(judge, fakes):
    [verdict] = judge(dog="yes", cups="some").judge([case(fakes)])
    assert (verdict.is_right, verdict.is_read) == (False, False)


def test_the_control_does_not_count(judge, fakes):
    control = control_check("oven")
    [honest] = judge(dog="yes", cups="2", oven="no").judge([case(fakes, control=control)])
    [yes_man] = judge(dog="yes", cups="2", oven="yes").judge([case(fakes, control=control)])
    assert (honest.is_right, honest.denies) == (True, True)
    assert (yes_man.is_right, yes_man.denies) == (True, False)
    assert honest.words == "right; a dog? yes; how many cups? 2; control right: an oven? no"
    assert yes_man.words.endswith("; control wrong: an oven? yes")


def test_all_questions_are_put_together_each_with_its_picture(judge, fakes):
    asked = judge(dog="yes", cups="2", oven="no")
    cases = [case(fakes, 1), case(fakes, 2, control=control_check("oven"))]
    verdicts = asked.judge(cases)
    assert [verdict.denies for verdict in verdicts] == [None, True]
    assert len(asked.engine.asked) == 2 + 3
    for number, (conversation, options) in enumerate(asked.engine.asked):
        [turn] = conversation.turns
        picture, question = turn.parts
        assert isinstance(picture, ReadImage)
        assert picture.picture == cases[number >= 2].picture
        assert isinstance(question, Text)
        assert turn.role == "user"
        assert (options.temperature, options.images) == (0.0, "forbid")


def test_a_record_tells_what_was_found():
    assert read_verdict("right; a dog? yes") == (True, None)
    assert read_verdict("right; a dog? yes; control right: an oven? no; it is") == (True, True)
    assert read_verdict("wrong; a dog? no; control wrong: an oven? yes") == (False, False)
    assert read_verdict("no picture") == (False, None)
    assert read_verdict(None) == (False, None)


def test_a_model_judges_itself_or_another_run_does(monkeypatch):
    own = SimpleNamespace(device=torch.device("cpu"))
    assert judging_engine(own, None) is own
    loaded = []

    def load(folder, device):
        loaded.append((folder, device))
        return "another", None

    monkeypatch.setattr(picture_judge, "find_model_folder", lambda run: run / "model")
    monkeypatch.setattr(picture_judge, "load_engine", load)
    assert judging_engine(own, "runs/judge") == "another"
    assert loaded == [(Path("runs/judge/model"), "cpu")]


def test_a_judge_that_is_not_there_is_refused(tmp_path):
    own = SimpleNamespace(device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="there is none"):
        judging_engine(own, str(tmp_path))
