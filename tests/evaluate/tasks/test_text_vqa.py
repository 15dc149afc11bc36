import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.task import Record
from mllm_npu.evaluate.tasks.text_vqa import TextVqa
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage, Text

ANSWERS = {11: ["bakery"] * 7 + ["the bakery", "Bakery.", "shop"], 12: ["no 5"] * 2 + ["5"] * 8}
HINT = "Answer the question using a single word or phrase."


def encoded(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def rows():
    return [
        {"question_id": 11, "image_id": "a1", "question": "what shop is it?"},
        {"question_id": 12, "image_id": "b2", "question": "which bus is coming?"},
    ]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train_images").mkdir()
    for image, colour in (("a1", "red"), ("b2", "blue")):
        (tmp_path / f"train_images/{image}.jpg").write_bytes(encoded(colour))
    write(tmp_path, [{**row, "answers": ANSWERS[row["question_id"]]} for row in rows()])
    return tmp_path


def write(folder, data):
    content = {"dataset_type": "val", "data": data}
    (folder / "TextVQA_0.5.1_val.json").write_text(json.dumps(content))


def make(root, **changes):
    return TextVqa(**{"data": root, "options": GenerationOptions(), **changes})


def test_a_question_is_its_picture_its_text_and_the_hint(folder):
    examples = make(folder).examples()
    assert [example.name for example in examples] == ["11", "12"]
    [turn] = examples[0].conversation.turns
    picture, text = turn.parts
    assert turn.role == "user"
    assert isinstance(picture, ReadImage)
    assert text == Text(text=f"what shop is it?\n{HINT}")
    assert make(folder, hint="").examples()[0].conversation.turns[0].parts[1] == Text(
        text="what shop is it?"
    )


def test_scores_are_those_computed_by_hand(folder, fakes):
    """Of ten answers nine say bakery; two say no 5, with which two see one and eight see two."""
    task = make(folder)
    first, second = task.examples()
    assert task.score(first, fakes.make_reply(" A Bakery\n")) == 1.0
    assert task.score(first, fakes.make_reply("shop")) == pytest.approx(0.3)
    assert task.score(second, fakes.make_reply("No. 5")) == pytest.approx(0.6)
    assert task.score(second, fakes.make_reply("five")) == 1.0
    assert task.score(second, fakes.make_reply("It is number 5")) == 0.0


def test_an_empty_reply_is_counted(folder, fakes):
    task = make(folder)
    example = task.examples()[0]
    assert task.explain(example, fakes.make_reply("The Bakery!")) == "bakery"
    assert task.explain(example, fakes.make_reply("a")) is None
    replies = [fakes.make_reply("bakery"), fakes.make_reply("")]
    records = [
        Record(example=e, reply=r, understood=task.explain(e, r), score=task.score(e, r))
        for e, r in zip(task.examples(), replies, strict=True)
    ]
    [figure] = task.figures(records)
    assert (figure.name, figure.value, figure.num, figure.num_unread) == ("text_vqa", 0.5, 2, 1)
    files = task.submissions(records)
    assert json.loads(files["text_vqa_val.json"]) == [
        {"question_id": 11, "answer": "bakery"},
        {"question_id": 12, "answer": ""},
    ]


def test_saved_rows_give_the_same_questions(folder, tmp_path):
    saved = tmp_path / "saved" / "data"
    saved.mkdir(parents=True)
    table = {key: [row[key] for row in rows()] for key in ("question_id", "image_id", "question")}
    table["answers"] = [ANSWERS[11], ANSWERS[12]]
    table["image"] = [{"bytes": encoded(colour), "path": None} for colour in ("red", "blue")]
    pq.write_table(pa.table(table), saved / "validation-00000-of-00001.parquet")
    found, released = make(saved.parent).examples(), make(folder).examples()
    assert [(e.name, e.answer) for e in found] == [(e.name, e.answer) for e in released]
    assert [e.conversation.turns[0].parts[1] for e in found] == [
        e.conversation.turns[0].parts[1] for e in released
    ]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"question_id": 11}, "'11' is there twice"),
        ({"answers": []}, r"row 2: the answers of people.*split val"),
        ({"image_id": "c3"}, r"c3\.jpg"),
        ({"question": None}, r"row 2.*question"),
    ],
)
def test_a_wrong_row_is_refused_with_its_place(folder, wrong, told):
    good = [{**row, "answers": ANSWERS[row["question_id"]]} for row in rows()]
    write(folder, [*good, {**good[1], "question_id": 13, **wrong}])
    with pytest.raises(DataError, match=told):
        make(folder).examples()


def test_what_is_missing_is_shown_in_the_tree(folder, tmp_path):
    with pytest.raises(DataError, match=r"(?s)nothing is there.*train_images/"):
        make(tmp_path / "absent").examples()
    with pytest.raises(DataError, match=r"(?s)no TextVQA_\*_train.json.*TextVQA_0.5.1_val.json"):
        make(folder, split="train").examples()
    (folder / "TextVQA_0.5.1_val.json").write_text("[]")
    with pytest.raises(DataError, match="no list under 'data'"):
        make(folder).examples()
