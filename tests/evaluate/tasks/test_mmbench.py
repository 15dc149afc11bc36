import base64
import csv
import io
from random import Random

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from mllm_npu.evaluate.tasks.mmbench import MMBench, read_choice
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Text
from mllm_npu.processing.raster import to_pillow

OPTIONS = GenerationOptions()
COLUMNS = ["index", "question", "hint", *"ABCD", "answer", "category", "image", "l2-category"]


def encoded(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def row(index, question, choices, answer, leaf, ability, *, hint="", colour="red"):
    given = dict(zip("ABCD", (*choices, "", "", "")[:4], strict=True))
    return {
        "index": str(index),
        "question": question,
        "hint": hint,
        **given,
        "answer": answer,
        "category": leaf,
        "image": base64.b64encode(encoded(colour)).decode(),
        "l2-category": ability,
    }


QUIZ = [
    row(1, "Which colour?", ("red", "blue"), "A", "color", "look"),
    row(2, "How many?", ("one", "two", "three"), "C", "count", "look", hint="Count all."),
    row(3, "Who is\nit?", ("a cat", "a dog"), "B", "kind", "think", colour="blue"),
    row(4, "What next?", ("rain", "snow"), "A", "future", "think"),
]


@pytest.fixture
def quiz(tmp_path):
    path = tmp_path / "mmbench_dev_en_1.tsv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t")
        writer.writeheader()
        writer.writerows(QUIZ)
    return tmp_path


def spoken(conversation):
    parts = conversation.turns[-1].parts
    return [part.text if isinstance(part, Text) else "picture" for part in parts]


def test_prompts(quiz):
    examples = MMBench(data=quiz, options=OPTIONS).examples()
    assert [example.name for example in examples[:5]] == ["1", "1000001", "2", "1000002", "2000002"]
    assert spoken(examples[1].conversation) == [
        "picture",
        "Question: Which colour?\nOptions:\nA. blue\nB. red\n"
        "Please select the correct answer from the options above. \n",
    ]
    assert spoken(examples[4].conversation) == [
        "picture",
        "Hint: Count all.\nQuestion: How many?\nOptions:\nA. three\nB. one\nC. two\n"
        "Please select the correct answer from the options above. \n",
    ]
    assert [example.answer for example in examples] == [*"AB", *"CBA", *"BA", *"AB"]
    assert examples[0].conversation.turns[0].role == "user"
    picture = examples[5].conversation.turns[0].parts[0].picture
    assert to_pillow(picture).getpixel((0, 0)) == (0, 0, 255)


def test_a_question_counts_where_every_rotation_is_right(quiz, write_replies):
    task = MMBench(data=quiz, options=OPTIONS)
    said = {example.name: example.answer for example in task.examples()}
    said |= {"1000002": "A", "1000003": "I cannot tell", "4": "(A)", "1000004": "The answer is B."}
    records = write_replies(task, lambda example: said[example.name])
    assert [record.score for record in records] == [1, 1, 1, 0, 1, 1, 0, 1, 1]
    figures = {figure.name: figure for figure in task.figures(records)}
    assert {name: figure.value for name, figure in figures.items()} == {
        "mmbench": 0.5,
        "mmbench/look": 0.5,
        "mmbench/color": 1.0,
        "mmbench/count": 0.0,
        "mmbench/think": 0.5,
        "mmbench/kind": 0.0,
        "mmbench/future": 1.0,
    }
    assert figures["mmbench"].num == 4
    assert figures["mmbench"].num_unread == 1
    assert figures["mmbench/kind"].num_unread == 1
    assert [figures[name].level for name in ("mmbench", "mmbench/look", "mmbench/color")] == [
        0,
        1,
        2,
    ]


def test_always_the_same_letter_is_never_right(quiz, write_replies):
    task = MMBench(data=quiz, options=OPTIONS)
    assert task.figures(write_replies(task, lambda example: "A"))[0].value == 0.0


def test_letters_are_weighed_where_that_is_wished(quiz, fakes):
    task = MMBench(data=quiz, options=OPTIONS, by="likelihood", frame="plain")
    example = task.examples()[2]
    assert example.choices == ("A", "B", "C")
    assert example.conversation.turns[0].role == "document"


def test_hidden_answers_make_a_submission_and_no_score(quiz, write_replies):
    hidden = [{**question, "answer": ""} for question in QUIZ]
    with (quiz / "mmbench_test_cn_1.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t")
        writer.writeheader()
        writer.writerows(hidden)
    task = MMBench(data=quiz, options=OPTIONS, split="test", language="cn")
    records = write_replies(task, lambda example: "B" if example.name == "3" else "no idea")
    [figure] = task.figures(records)
    assert figure.name == "mmbench/answered"
    assert figure.value == pytest.approx(1 / 9, abs=1e-4)
    [(name, text)] = task.submissions(records).items()
    assert name == "mmbench_test_cn.tsv"
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))
    assert rows[5] == {
        "index": "3",
        "question": "Who is\nit?",
        "hint": "",
        **dict(zip("ABCDE", ("a cat", "a dog", "", "", ""), strict=True)),
        "prediction": "B",
        "category": "kind",
        "l2-category": "think",
    }


def test_a_saved_data_set_says_the_same(quiz, tmp_path):
    folder = tmp_path / "saved" / "en"
    folder.mkdir(parents=True)
    rows = [
        {
            **{key: value for key, value in question.items() if key != "l2-category"},
            "L2-category": question["l2-category"],
            "hint": question["hint"] or "nan",
            "C": question["C"] or "nan",
            "image": {"bytes": base64.b64decode(question["image"]), "path": None},
        }
        for question in QUIZ
    ]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "dev-00000-of-00001.parquet")
    (tmp_path / "saved" / "cn").mkdir()
    parquet.write_table(pa.Table.from_pylist(rows[:1]), tmp_path / "saved" / "cn" / "dev-0.parquet")
    saved = MMBench(data=tmp_path / "saved", options=OPTIONS).examples()
    published = MMBench(data=quiz, options=OPTIONS).examples()
    assert [spoken(one.conversation) for one in saved] == [
        spoken(one.conversation) for one in published
    ]
    assert [one.answer for one in saved] == [one.answer for one in published]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(C)", "C"),
        ("The answer is B.", "B"),
        ("It is a cat", "A"),
        ("a dog", "B"),
        ("B. Because the animal in the picture has a very long tail and barks", "B"),
        ("a cat or a dog", None),
        ("The answer is B, not A", "B"),
        ("no idea", None),
        ("", None),
    ],
)
def test_reading_of_replies(text, letter):
    assert read_choice(text, ["a cat", "a dog", "a mouse"]) == letter


def test_guesses_are_right_as_often_as_chance(tmp_path, guess_letters, write_replies, is_chance):
    with (tmp_path / "mmbench_dev_en_1.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t")
        writer.writeheader()
        for number in range(100):
            choices = ("north", "east", "south", "west")
            writer.writerow(row(number, "Where?", choices, "ABCD"[number % 4], "place", "look"))
    task = MMBench(data=tmp_path, options=OPTIONS, by="likelihood")
    examples = task.examples()
    assert is_chance(guess_letters(task, examples, seed=1), len(examples))
    random = Random(1)
    records = write_replies(task, lambda example: random.choice("ABCD"), examples)
    assert task.figures(records)[0].value < 0.05, "four times right by chance is 1 in 256"
