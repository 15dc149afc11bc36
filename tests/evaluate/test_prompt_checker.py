import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles
from mllm_npu.evaluate.picture_judge import PictureJudge
from mllm_npu.evaluate.prompt_checker import (
    PromptChecker,
    control_figures,
    find_controls,
    prompt_figure,
)
from mllm_npu.evaluate.prompt_file import read_prompts

LINES = """{"id": "a", "prompt": "a dog", "include": [{"class": "dog", "count": 1}]}
{"id": "b", "prompt": "a dog and a cat", "include": [{"class": "cat", "count": 1}]}
{"id": "c", "prompt": "a big dog", "include": [{"class": "dog", "count": 1}]}
{"id": "d", "prompt": "anything"}
"""


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "p.jsonl").write_text(LINES)
    return read_prompts(BenchmarkFiles(tmp_path, layout="prompts"), "p.jsonl")


@pytest.fixture
def checker(prompts, fakes):
    """Its judge sees dogs, and nothing else."""

    def answer(conversation, options):
        question = conversation.turns[0].parts[-1].text
        return fakes.make_reply("yes" if "a dog" in question else "no")

    return PromptChecker(prompts=prompts, judge=PictureJudge(engine=fakes.Oracle(answer)))


def pair(fakes, prompt, number=0, pictures=1):
    example = fakes.make_example("x", facts={"prompt_name": prompt}, name=f"{prompt}-{number}")
    return example, fakes.make_reply("", [fakes.noise_picture(n) for n in range(pictures)])


def test_a_control_is_a_class_that_the_prompt_does_not_speak_of(prompts):
    """The dog of c stands in the words of b, and a's own class is the same as c's."""
    assert find_controls(prompts) == {"a": "cat", "c": "cat"}


def test_a_picture_is_judged_by_the_checks_of_its_prompt(checker, fakes):
    assert checker.verdict(*pair(fakes, "a")).is_right
    assert not checker.verdict(*pair(fakes, "b")).is_right
    assert checker.verdict(*pair(fakes, "a")).words == "right; a dog? yes; control right: a cat? no"


def test_questions_about_many_pictures_are_put_together_and_once(checker, fakes, monkeypatch):
    monkeypatch.setattr("mllm_npu.evaluate.prompt_checker._AT_ONCE", 2)
    asked = []
    judge = checker._judge.judge
    monkeypatch.setattr(
        checker._judge, "judge", lambda cases: asked.append(len(cases)) or judge(cases)
    )
    pairs = [pair(fakes, "a", number) for number in range(3)]
    checker.look([*pairs, pair(fakes, "b", 9, pictures=0)])
    assert asked == [2, 1]
    checker.look(pairs)
    assert all(checker.verdict(*one).is_right for one in pairs)
    assert asked == [2, 1]


def test_no_picture_is_wrong_without_a_question(checker, fakes):
    verdict = checker.verdict(*pair(fakes, "a", pictures=0))
    assert (verdict.is_right, verdict.is_read, verdict.words) == (False, True, "no picture")


def test_a_prompt_without_checks_cannot_be_judged(checker, fakes):
    with pytest.raises(DataError, match=r"'d' was to be checked.*Add include"):
        checker.verdict(*pair(fakes, "d"))


def records(fakes, *values, words=None):
    """Records of two pictures for each prompt."""
    return [
        fakes.make_record("x", words or "x", n, facts={"prompt_name": str(n // 2)})
        for n, _ in enumerate(values)
    ]


def test_the_mean_is_over_pictures_and_its_interval_over_prompts(fakes):
    values = [1.0, 1.0, 0.0, 0.0]
    made = records(fakes, *values)
    figure = prompt_figure(
        name="draw",
        title="Drawn",
        records=made,
        values={r.example.name: v for r, v in zip(made, values, strict=True)},
    )
    assert (figure.value, figure.num) == (0.5, 4)
    assert figure.interval == (0.0, 1.0)
    # Two independent prompts: the deviation of a mean of two coins, not of four.
    assert figure.standard_error == pytest.approx(0.5 / 2**0.5, rel=0.1)


def test_records_without_a_value_are_left_out(fakes):
    made = records(fakes, 0, 0, 0, 0)
    figure = prompt_figure(name="draw", title="Drawn", records=made, values={"e3": 0.25})
    assert (figure.value, figure.num) == (0.25, 1)


def test_controls_are_counted_where_they_were_asked(fakes):
    made = [
        *records(fakes, 0, 0, words="right; a dog? yes; control right: a cat? no"),
        *records(fakes, 0, words="no picture"),
    ]
    made[0] = fakes.make_record("x", "right; a dog? yes; control wrong: a cat? yes", 7)
    [figure] = control_figures(made, "draw")
    assert (figure.name, figure.value, figure.num, figure.level) == ("draw/control", 0.5, 2, 1)
    assert control_figures(records(fakes, 0, words="no picture"), "draw") == []
