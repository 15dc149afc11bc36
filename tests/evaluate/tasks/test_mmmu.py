import io
import json
import zipfile

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.tasks.mmmu import MMMU, normalize, parse_choice
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import Text
from mllm_npu.processing.raster import to_pillow

OPTIONS = GenerationOptions()
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "lime": (0, 255, 0)}
NAMES = {value: name for name, value in COLOURS.items()}


def image(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{colour}.png"}


def row(name, question, options, answer, *colours):
    pictures = {f"image_{number}": image(colour) for number, colour in enumerate(colours, 1)}
    return {
        "id": name,
        "question": question,
        "options": str(options),
        **{f"image_{number}": None for number in range(1, 8)},
        **pictures,
        "answer": answer,
        "question_type": "multiple-choice" if options else "open",
    }


ART = [
    row("validation_Art_1", "<image 1> Which?", ["oil", "ink"], "A", "red"),
    row(
        "validation_Art_2",
        "Compare <image 1>",
        ["<image 2>", "<image 3>", "none"],
        "C",
        *("red", "blue", "lime"),
    ),
]
MATH = [
    row("validation_Math_1", "How long is <image 1>?", [], "1.5", "blue"),
    row("validation_Math_2", "Which curve?", [], "['sine', 'sin x']", "red"),
    row("validation_Physics_1", "<image 1>?", ["up", "down", "left", "right"], "D", "red"),
]


def write(root, tables):
    for name, rows in tables.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(rows), path)
    return root


@pytest.fixture
def quiz(tmp_path):
    tables = {
        "Art/validation-00000-of-00001.parquet": ART,
        "Art/dev-00000-of-00001.parquet": ART[:1],
        "Math/validation-00000-of-00001.parquet": MATH,
    }
    return write(tmp_path / "mmmu", tables)


def spoken(conversation):
    return [
        part.text if isinstance(part, Text) else NAMES[to_pillow(part.picture).getpixel((0, 0))]
        for part in conversation.turns[-1].parts
    ]


def test_prompts(quiz):
    examples = MMMU(data=quiz, options=OPTIONS).examples()
    assert [spoken(example.conversation) for example in examples[:4]] == [
        [
            "red",
            " Which?\n(A) oil\n(B) ink\n\n"
            "Answer with the option's letter from the given choices directly.",
        ],
        [
            "Compare ",
            "red",
            "\n(A) ",
            "blue",
            "\n(B) ",
            "lime",
            "\n(C) none\n\nAnswer with the option's letter from the given choices directly.",
        ],
        ["How long is ", "blue", "?\nAnswer the question using a single word or phrase."],
        ["red", "Which curve?\nAnswer the question using a single word or phrase."],
    ]
    assert examples[0].groups == ("Art and Design", "Art")
    assert examples[4].groups == ("Science", "Physics")


def test_scores_and_averages(quiz, write_replies):
    task = MMMU(data=quiz, options=OPTIONS)
    said = {
        "validation_Art_1": "(A)",
        "validation_Art_2": "It is B or C",
        "validation_Math_1": "The length is 1.50 m",
        "validation_Math_2": "a sine curve",
        "validation_Physics_1": "(A)",
    }
    records = write_replies(task, lambda example: said[example.name])
    assert [record.score for record in records] == [1, 1, 1, 1, 0]
    assert records[2].understood == "1.50 m | 1.5"
    figures = {figure.name: figure for figure in task.figures(records)}
    assert {name: figure.value for name, figure in figures.items()} == {
        "mmmu": 0.8,
        "mmmu/Art and Design": 1.0,
        "mmmu/Art": 1.0,
        "mmmu/Science": pytest.approx(2 / 3, abs=1e-5),
        "mmmu/Math": 1.0,
        "mmmu/Physics": 0.0,
    }
    assert figures["mmmu"].num_unread == 0


def test_a_reply_without_a_choice_is_counted_and_guessed_alike_each_time(quiz, write_replies):
    task = MMMU(data=quiz, options=OPTIONS)
    records = write_replies(task, lambda example: "no idea")
    choosing = [record for record in records if record.example.facts["letters"]]
    assert [record.understood for record in choosing] == [None] * 3
    assert task.figures(records)[0].num_unread == 3
    again = write_replies(MMMU(data=quiz, options=OPTIONS), lambda example: "no idea")
    assert [record.score for record in again] == [record.score for record in records]


def test_guesses_for_unread_replies_are_right_as_often_as_chance(
    tmp_path, write_replies, guess_letters, is_chance
):
    choices = ["north", "east", "south", "west"]
    rows = [
        row(f"validation_Music_{number}", "Where?", choices, "ABCD"[number % 4])
        for number in range(400)
    ]
    pictures = {f"image_{number}": image("red") for number in range(1, 8)}
    write(tmp_path, {"Music/validation-0.parquet": [{**one, **pictures} for one in rows]})
    task = MMMU(data=tmp_path, options=OPTIONS, by="likelihood")
    examples = task.examples()
    assert is_chance(guess_letters(task, examples, seed=1), len(examples))
    records = write_replies(task, lambda example: "hm", examples)
    assert is_chance(sum(record.score for record in records) / len(records), len(records))


def test_an_empty_reply_to_an_open_question_is_unread(quiz, fakes):
    task = MMMU(data=quiz, options=OPTIONS)
    example = task.examples()[2]
    assert task.explain(example, fakes.make_reply(" ")) is None
    assert task.score(example, fakes.make_reply(" ")) == 0.0


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B) because not A", "B"),
        ("(A) or (B)", "B"),
        ("A B", "B"),
        ("I think that it must be a red Fox", "B"),
        ("first a hen and then later a red fox", "B"),
        ("a red fox", None),
        ("B) a hen", None),
        ("", None),
    ],
)
def test_choices_are_read_as_in_the_official_script(text, letter):
    assert parse_choice(text, ["a hen", "a red fox"]) == letter


@pytest.mark.parametrize(
    ("text", "forms"),
    [("1,000", [1000.0]), ("Red Fox ", ["red fox"]), ("x", [" x", "x "]), ("3.14159", [3.14])],
)
def test_answers_are_compared_in_these_forms(text, forms):
    assert normalize(text) == forms


@pytest.mark.parametrize(
    ("right", "said", "score"),
    [
        ("24", "24", 1),
        ("24", "The answer is 24.", 1),
        ("24", "24.001", 1),
        ("24", "241", 0),
        ("x", "it is y x", 1),
        ("x", "axe", 0),
        ("['1/2', '0.5']", "so 1/2", 1),
        ("['1/2', '0.5']", "0.50", 1),
        ("1,200", "costs = 1200", 1),
    ],
)
def test_open_questions(right, said, score, tmp_path, fakes):
    only = row("validation_Math_1", "<image 1>?", [], right, "red")
    write(tmp_path, {"validation-0.parquet": [only]})
    task = MMMU(data=tmp_path, options=OPTIONS)
    assert task.score(task.examples()[0], fakes.make_reply(said)) == score


def test_hidden_answers_make_a_submission_and_no_score(tmp_path, write_replies):
    rows = [
        row("test_Art_1", "<image 1>?", ["oil", "ink"], "?", "red"),
        row("test_Art_2", "<image 1>?", [], "?", "red"),
        row("test_Art_3", "<image 1>?", ["oil", "ink"], "?", "red"),
    ]
    write(tmp_path, {"test-0.parquet": rows})
    task = MMMU(data=tmp_path, options=OPTIONS, split="test")
    said = {"test_Art_1": "(B)", "test_Art_2": "It is ink.", "test_Art_3": "hm"}
    records = write_replies(task, lambda example: said[example.name])
    [figure] = task.figures(records)
    assert figure.name == "mmmu/answered"
    assert figure.value == pytest.approx(2 / 3, abs=1e-5)
    [(name, text)] = task.submissions(records).items()
    assert name == "mmmu_test.json"
    assert json.loads(text) == {"test_Art_1": "B", "test_Art_2": "It is ink.", "test_Art_3": ""}


@pytest.mark.parametrize("form", ["zip", "arrow"])
def test_other_forms_of_the_data_set(form, quiz, tmp_path):
    path = tmp_path / "other"
    if form == "zip":
        path = tmp_path / "other.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in quiz.rglob("*.parquet"):
                archive.write(file, file.relative_to(quiz))
    else:
        (path / "validation").mkdir(parents=True)
        table = pa.Table.from_pylist([*ART, *MATH])
        with ipc.new_stream(path / "validation" / "data-0.arrow", table.schema) as stream:
            stream.write_table(table)
    given = MMMU(data=path, options=OPTIONS).examples()
    expected = MMMU(data=quiz, options=OPTIONS).examples()
    assert [(one.name, spoken(one.conversation)) for one in given] == [
        (one.name, spoken(one.conversation)) for one in expected
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": "['oil',"}, "row 1: no choices can be read in"),
        ({"options": "open('x')"}, "row 1: no choices can be read in"),
        ({"answer": "C"}, "row 1: the right answer is 'C', there are the choices AB"),
        ({"id": "validation_Cooking_1"}, "row 1: the id 'validation_Cooking_1' names no subject"),
        ({"question": "<image 4>"}, "row 1: the question shows <image 4>, there is no image_4"),
        ({"image_1": {"bytes": b"no", "path": None}}, "row 1, image_1: its picture cannot be read"),
    ],
)
def test_broken_rows_are_named(changes, message, tmp_path):
    write(tmp_path, {"validation-0.parquet": [{**ART[0], **changes}]})
    with pytest.raises(DataError, match=message):
        MMMU(data=tmp_path, options=OPTIONS).examples()


def test_two_questions_of_one_name_are_refused(tmp_path):
    write(tmp_path, {"validation-0.parquet": ART[:1], "validation-1.parquet": ART[:1]})
    with pytest.raises(DataError, match="'validation_Art_1' is there twice"):
        MMMU(data=tmp_path, options=OPTIONS).examples()


def test_a_missing_folder_shows_the_tree(tmp_path):
    with pytest.raises(DataError, match=r"nothing is there.*\nAccounting/validation-00000"):
        MMMU(data=tmp_path / "none", options=OPTIONS).examples()
