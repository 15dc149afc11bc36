import hashlib
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mllm_npu.errors import DataError, JudgeError
from mllm_npu.evaluate.answer_book import question_key
from mllm_npu.evaluate.task import Record
from mllm_npu.evaluate.tasks.mm_vet import JUDGE_PROMPT, MmVet
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage, Text

PUBLISHED = "d1b3e0a5b4e72c888b77164489d705bba4dd149934fff564dfba6443d81afe3f"
"""Of the judge's prompt as its authors wrote it."""


class StubJudge:
    """Grades by the reply that stands before the last mark of a prompt."""

    def __init__(self, grades):
        self.grades, self.asked = grades, []

    def ask(self, prompt):
        self.asked.append(prompt)
        reply = prompt.split(" | ")[-2]
        grades = self.grades[reply]
        return grades[0] if not prompt.endswith(": ") else grades[1]


def encoded(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def question(image, text, answer, *abilities):
    return {
        "imagename": image,
        "imagesource": "drawn",
        "question": text,
        "answer": answer,
        "capability": list(abilities),
    }


QUESTIONS = {
    "v1_0": question("v1_0.png", "What does the sign say?", "exit<OR>way out", "ocr"),
    "v1_1": question("v1_1.png", "How many hats?", "3", "rec", "math"),
    "v1_2": question("v1_1.png", "Who wears one?", "a cook<AND>a clown", "know", "rec"),
    "v1_3": question("v1_0.png", "What is left of it?", "a lamp", "math", "rec"),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name, colour in (("v1_0.png", "red"), ("v1_1.png", "blue")):
        (tmp_path / "images" / name).write_bytes(encoded(colour))
    write(tmp_path, QUESTIONS)
    return tmp_path


def write(folder, content):
    (folder / "mm-vet.json").write_text(json.dumps(content))


def make(root, **changes):
    return MmVet(**{"data": root, "options": GenerationOptions(), **changes})


def record_all(fakes, task, said):
    records = []
    for example, text in zip(task.examples(), said, strict=True):
        reply = fakes.make_reply(text)
        records.append(
            Record(
                example=example,
                reply=reply,
                understood=task.explain(example, reply),
                score=task.score(example, reply),
            )
        )
    return records


def test_a_question_is_its_picture_and_its_text(folder):
    examples = make(folder).examples()
    assert [example.name for example in examples] == list(QUESTIONS)
    [turn] = examples[0].conversation.turns
    picture, text = turn.parts
    assert turn.role == "user"
    assert isinstance(picture, ReadImage)
    assert text == Text(text="What does the sign say?")
    assert examples[2].facts["abilities"] == "rec,know"
    assert len({question_key(example) for example in examples}) == 4


def test_saved_rows_give_the_same_questions(folder, tmp_path_factory):
    saved = tmp_path_factory.mktemp("saved")
    table = {
        "question_id": list(QUESTIONS),
        "image": [{"bytes": encoded("red"), "path": None}] * 4,
        **{key: [row[key] for row in QUESTIONS.values()] for key in ("question", "answer")},
        "capability": [",".join(row["capability"]) for row in QUESTIONS.values()],
    }
    path = saved / "test-00000-of-00001.parquet"
    pq.write_table(pa.table(table), path)
    found, released = make(saved).examples(), make(folder).examples()
    assert [(e.name, e.answer, e.facts) for e in found] == [
        (e.name, e.answer, e.facts) for e in released
    ]
    table["question_id"][1] = "v1_0"
    pq.write_table(pa.table(table), path)
    with pytest.raises(DataError, match="'v1_0' is there twice"):
        make(saved).examples()


def test_the_prompt_of_the_judge_is_the_published_one():
    assert hashlib.sha256(JUDGE_PROMPT.encode()).hexdigest() == PUBLISHED


def test_the_judge_reads_question_truth_and_reply_in_one_row(folder, fakes):
    judge = StubJudge({"Way out": ("1.0",)})
    task = make(folder, judge=judge)
    example = task.examples()[0]
    assert task.score(example, fakes.make_reply(" Way out\n")) == 1.0
    [prompt] = judge.asked
    assert prompt == JUDGE_PROMPT + ("\nWhat does the sign say? | exit <OR> way out | Way out | ")


@pytest.mark.parametrize(
    ("grades", "score", "is_read"),
    [
        (("0.4",), 0.4, True),
        ((" 1.0 (totally right)",), 1.0, True),
        (("good", "0.7"), 0.7, True),
        (("", "0"), 0.0, True),
        (("1.5", "-1"), 0.0, False),
        (("nan", "good"), 0.0, False),
    ],
)
def test_a_grade_that_cannot_be_read_is_asked_for_once_more(folder, fakes, grades, score, is_read):
    judge = StubJudge({"exit": grades})
    task = make(folder, judge=judge)
    example, reply = task.examples()[0], fakes.make_reply("exit")
    assert task.score(example, reply) == score
    assert (task.explain(example, reply) is not None) == is_read
    if len(grades) == 2:
        assert (
            judge.asked[1] == judge.asked[0] + "\nPredict the correctness of the answer (digit): "
        )


def test_averages_are_those_computed_by_hand(folder, fakes):
    """Grades 1 (ocr), 0.5 (rec, math), 0 and unread (rec, know), 0.4 (rec, math)."""
    judge = StubJudge({"a": ("1.0",), "b": ("0.5",), "c": ("?", "?"), "d": ("0.4",)})
    task = make(folder, judge=judge)
    figures = {f.name: f for f in task.figures(record_all(fakes, task, "abcd"))}
    assert {name: figure.value for name, figure in figures.items()} == {
        "mm_vet": 0.475,
        "mm_vet/rec": 0.3,
        "mm_vet/ocr": 1.0,
        "mm_vet/know": 0.0,
        "mm_vet/math": 0.45,
        "mm_vet/only/rec+math": 0.45,
        "mm_vet/only/ocr": 1.0,
        "mm_vet/only/rec+know": 0.0,
    }
    assert next(iter(figures)) == "mm_vet"
    assert [figures[name].num for name in ("mm_vet", "mm_vet/rec")] == [4, 3]
    assert figures["mm_vet"].num_unread == 1
    assert figures["mm_vet/only/ocr"].level == 2


def test_without_a_judge_the_submission_is_all_there_is(folder, fakes):
    task = make(folder)
    records = record_all(fakes, task, [" Exit\n", "three", "a cook", "é"])
    [figure] = task.figures(records)
    assert figure.name == "mm_vet/ungraded"
    assert figure.value == 4
    assert "set judge, or hand in mm_vet.json" in figure.title
    [(name, text)] = task.submissions(records).items()
    assert name == "mm_vet.json"
    assert json.loads(text) == {"v1_0": "Exit", "v1_1": "three", "v1_2": "a cook", "v1_3": "é"}


def test_a_judge_that_does_not_answer_stops_the_scoring(folder, fakes):
    class Dead:
        def ask(self, prompt):
            raise JudgeError("The answers are kept, run the same command again.")

    task = make(folder, judge=Dead())
    with pytest.raises(JudgeError):
        task.score(task.examples()[0], fakes.make_reply("exit"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (question("v1_9.png", "?", "a", "rec"), r"v1_9\.png"),
        (question("v1_0.png", "?", "a", "smell"), r"v1_4.*'smell'"),
        (question("v1_0.png", "?", "a"), r"v1_4.*\[\]"),
        ({"imagename": "v1_0.png"}, r"v1_4.*question"),
    ],
)
def test_a_wrong_question_is_refused_with_its_name(folder, wrong, told):
    write(folder, {**QUESTIONS, "v1_4": wrong})
    with pytest.raises(DataError, match=told):
        make(folder).examples()


def test_what_is_missing_is_shown_in_the_tree(folder, tmp_path):
    with pytest.raises(DataError, match=r"(?s)nothing is there.*mm-vet.json"):
        make(tmp_path / "absent").examples()
    write(folder, [])
    with pytest.raises(DataError, match=r"(?s)no questions by their names.*images/"):
        make(folder).examples()
    (folder / "mm-vet.json").unlink()
    with pytest.raises(DataError, match=r"(?s)no mm-vet.json"):
        make(folder).examples()
