import io
import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.tasks.science_qa import ScienceQA, parse_letter
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Text
from mllm_npu.processing.raster import to_pillow

OPTIONS = GenerationOptions()
LETTER_ONLY = "Answer with the option's letter from the given choices directly."


def encoded(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def problem(question, choices, answer, subject, grade, *, hint="", picture=True):
    return {
        "question": question,
        "choices": choices,
        "answer": answer,
        "hint": hint,
        "image": "image.png" if picture else None,
        "subject": subject,
        "grade": f"grade{grade}",
        "split": "test",
    }


PROBLEMS = {
    "5": problem("Which is hot?", ["ice", "fire"], 1, "natural science", 2, hint="Look at it."),
    "7": problem("Which state?", ["Ohio", "Utah", "Iowa"], 0, "social science", 9),
    "9": problem("Who  ran?", ["a cat", "a dog"], 0, "language science", 7, picture=False),
    "11": problem("Is it up?", ["yes", "no"], 1, "natural science", 12),
    "12": problem("Train?", ["yes", "no"], 1, "natural science", 12),
}


@pytest.fixture
def quiz(tmp_path):
    root = tmp_path / "scienceqa"
    root.mkdir()
    (root / "problems.json").write_text(json.dumps(PROBLEMS))
    (root / "pid_splits.json").write_text(
        json.dumps({"test": ["5", "7", "9", "11"], "train": ["12"]})
    )
    for name in ("5", "7", "11"):
        folder = root / "images" / "test" / name
        folder.mkdir(parents=True)
        (folder / "image.png").write_bytes(encoded("blue" if name == "7" else "red"))
    return root


def spoken(example):
    parts = example.conversation.turns[-1].parts
    return [part.text if isinstance(part, Text) else "picture" for part in parts]


def test_prompts(quiz):
    examples = ScienceQA(data=quiz, options=OPTIONS).examples()
    assert [example.name for example in examples] == ["5", "7", "11"]
    assert spoken(examples[0]) == [
        "picture",
        "Context: Look at it.\nQuestion: Which is hot?\nOptions: (A) ice (B) fire\n" + LETTER_ONLY,
    ]
    assert spoken(examples[1])[1] == (
        "Context: N/A\nQuestion: Which state?\nOptions: (A) Ohio (B) Utah (C) Iowa\n" + LETTER_ONLY
    )
    assert to_pillow(examples[1].conversation.turns[0].parts[0].picture).getpixel((0, 0))[2] == 255
    assert [example.answer for example in examples] == ["B", "A", "B"]


def test_text_that_goes_on_ends_as_the_official_prompt(quiz):
    task = ScienceQA(data=quiz, options=OPTIONS, frame="plain", by="likelihood")
    example = task.examples()[1]
    assert spoken(example)[1].endswith("(C) Iowa\nAnswer:")
    assert example.choices == ("A", "B", "C")
    assert example.conversation.turns[0].role == "document"


def test_questions_without_a_picture_are_asked_where_that_is_wished(quiz):
    examples = ScienceQA(data=quiz, options=OPTIONS, with_picture_only=False).examples()
    assert [example.name for example in examples] == ["5", "7", "9", "11"]
    assert spoken(examples[2]) == [
        f"Context: N/A\nQuestion: Who ran?\nOptions: (A) a cat (B) a dog\n{LETTER_ONLY}"
    ]


def test_accuracy_of_the_classes_of_the_published_table(quiz, write_replies):
    said = {"5": "B", "7": "The answer is B.", "9": "A", "11": "B. It is not"}
    task = ScienceQA(data=quiz, options=OPTIONS, with_picture_only=False)
    figures = task.figures(write_replies(task, lambda example: said[example.name]))
    assert {figure.name: figure.value for figure in figures} == {
        "science_qa": 0.75,
        "science_qa/NAT": 1.0,
        "science_qa/SOC": 0.0,
        "science_qa/LAN": 1.0,
        "science_qa/TXT": 1.0,
        "science_qa/IMG": pytest.approx(2 / 3, abs=1e-5),
        "science_qa/NO": 1.0,
        "science_qa/G1-6": 1.0,
        "science_qa/G7-12": pytest.approx(2 / 3, abs=1e-5),
    }
    assert figures[0].title == "ScienceQA"
    assert [figure.level for figure in figures] == [0, *[1] * 8]


def test_classes_without_a_question_have_no_figure(quiz, write_replies):
    task = ScienceQA(data=quiz, options=OPTIONS)
    figures = task.figures(write_replies(task, lambda example: "A"))
    assert figures[0].title == "ScienceQA-IMG"
    assert "science_qa/NO" not in {figure.name for figure in figures}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" B.\n", "B"),
        ("B. fire", "B"),
        ("B\nbecause", "B"),
        ("The answer is B.", "B"),
        ("Hot things burn. The answer is (B), of course", "B"),
        ("D", None),
        ("fire", None),
        ("Because B", None),
        ("", None),
    ],
)
def test_replies_are_read(text, letter):
    assert parse_letter(text, "ABC") == letter


def test_unread_replies_are_counted_and_guessed(tmp_path, write_replies, guess_letters, is_chance):
    choices = ["north", "east", "south", "west"]
    problems = {
        str(number): problem("Where?", choices, number % 4, "social science", 3)
        for number in range(400)
    }
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    (tmp_path / "pid_splits.json").write_text(json.dumps({"test": list(problems)}))
    for name in problems:
        folder = tmp_path / "images" / "test" / name
        folder.mkdir(parents=True)
        (folder / "image.png").write_bytes(encoded())
    task = ScienceQA(data=tmp_path, options=OPTIONS, by="likelihood")
    examples = task.examples()
    assert is_chance(guess_letters(task, examples, seed=2), len(examples))
    records = write_replies(task, lambda example: "hm", examples)
    figure = task.figures(records)[0]
    assert figure.num_unread == 400
    assert is_chance(figure.value, 400)


def test_a_saved_data_set_says_the_same(quiz, tmp_path):
    rows = [
        {**PROBLEMS[name], "image": {"bytes": encoded(), "path": None} if picture else None}
        for name, picture in (("5", True), ("7", True), ("9", False), ("11", True))
    ]
    for folder, kept in (("ScienceQA-FULL", rows), ("ScienceQA-IMG", rows[:2] + rows[3:])):
        (tmp_path / "saved" / folder).mkdir(parents=True)
        table = pa.Table.from_pylist(kept)
        parquet.write_table(table, tmp_path / "saved" / folder / "test-0.parquet")
    saved = ScienceQA(data=tmp_path / "saved", options=OPTIONS).examples()
    published = ScienceQA(data=quiz, options=OPTIONS).examples()
    assert [spoken(one) for one in saved] == [spoken(one) for one in published]
    everything = ScienceQA(data=tmp_path / "saved", options=OPTIONS, with_picture_only=False)
    assert len(everything.examples()) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": 2}, "question 5: the right answer is 2, there are 2 choices"),
        ({"answer": "B"}, "question 5: the right answer is 'B'"),
        ({"choices": ["ice"]}, "question 5: the choices are"),
        ({"subject": "cooking"}, "question 5: subject 'cooking'"),
        ({"image": "other.png"}, r"question 5 names test/5/other\.png, which is not there"),
    ],
)
def test_broken_questions_are_named(changes, message, quiz):
    problems = {**PROBLEMS, "5": {**PROBLEMS["5"], **changes}}
    (quiz / "problems.json").write_text(json.dumps(problems))
    with pytest.raises(DataError, match=message):
        ScienceQA(data=quiz, options=OPTIONS).examples()


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": ["5", "99"]}, "names question 99, which is not there"),
        ({"test": ["5", "5"]}, "the example '5' is there twice"),
        ({"train": ["5"]}, "has no list 'test'"),
        ([], "has no list 'test'"),
    ],
)
def test_broken_splits_are_named(splits, message, quiz):
    (quiz / "pid_splits.json").write_text(json.dumps(splits))
    with pytest.raises(DataError, match=message):
        ScienceQA(data=quiz, options=OPTIONS).examples()


def test_a_broken_picture_names_its_question(quiz):
    (quiz / "images" / "test" / "7" / "image.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"question 7, images/test/7/image\.png: its picture"):
        ScienceQA(data=quiz, options=OPTIONS).examples()


def test_a_missing_folder_shows_the_tree(tmp_path):
    with pytest.raises(DataError, match=r"nothing is there.*\nproblems\.json\npid_splits\.json"):
        ScienceQA(data=tmp_path / "none", options=OPTIONS).examples()
