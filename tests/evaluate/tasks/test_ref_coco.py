import io
import json
import math
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.answer_book import question_key
from mllm_npu.evaluate.task import Record
from mllm_npu.evaluate.tasks.ref_coco import SPLITS, RefCoco
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage, Text
from mllm_npu.processing.grounding import Box

FILE = "COCO_train2014_000000000001.jpg"
SIZE = (200, 100)


def encoded():
    buffer = io.BytesIO()
    Image.new("RGB", SIZE, "red").save(buffer, "JPEG")
    return buffer.getvalue()


def row(phrase, box, **changes):
    values = {"image": f"data/coco/train2014/{FILE}", "sent": phrase, "bbox": box}
    return {**values, "width": SIZE[0], "height": SIZE[1], **changes}


def write(folder, split, rows):
    (folder / "train2014").mkdir(parents=True, exist_ok=True)
    (folder / "train2014" / FILE).write_bytes(encoded())
    text = "".join(json.dumps(each) + "\n" for each in rows)
    (folder / f"{split}.jsonl").write_text(text)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "refcoco_val", [row("left cup", [20, 10, 60, 50]), row("tree", [0, 0, 20, 50])])
    write(tmp_path, "refcoco+_testA", [row("girl in red", [100, 0, 200, 100])])
    return tmp_path


TWO = ("refcoco_val", "refcoco+_testA")


def make(root, **changes):
    return RefCoco(**{"data": root, "options": GenerationOptions(), "splits": TWO, **changes})


def record_all(fakes, task, say):
    records = []
    for example in task.examples():
        reply = fakes.make_reply(say(example))
        records.append(
            Record(
                example=example,
                reply=reply,
                understood=task.explain(example, reply),
                score=task.score(example, reply),
            )
        )
    return records


def test_a_phrase_is_asked_with_its_picture(folder):
    examples = make(folder).examples()
    assert [example.name for example in examples] == [
        *("refcoco_val/0", "refcoco_val/1", "refcoco+_testA/0")
    ]
    assert examples[2].groups == ("refcoco+", "refcoco+_testA")
    assert examples[0].answer == "[20, 10, 60, 50]"
    [turn] = examples[0].conversation.turns
    picture, text = turn.parts
    assert isinstance(picture, ReadImage)
    assert text == Text(
        text="Please provide the bounding box coordinate of the region this sentence describes: "
        "left cup"
    )
    other = make(folder, question="Where is {sentence}? {x}").examples()[0].conversation
    assert other.turns[0].parts[1] == Text(text="Where is left cup? {x}")


def test_a_line_ends_at_a_newline_only(tmp_path):
    """JSON leaves other ends of lines inside a text as they are."""
    write(tmp_path, "refcoco_val", [])
    line = json.dumps(row("cup\u2028on the left", [20, 10, 60, 50]), ensure_ascii=False)
    (tmp_path / "refcoco_val.jsonl").write_text(f"{line}\n{line}\n", encoding="utf-8")
    assert len(make(tmp_path, splits=("refcoco_val",)).examples()) == 2


def test_saved_rows_give_the_same_questions(folder, tmp_path):
    saved = tmp_path / "saved" / "RefCOCO" / "data"
    saved.mkdir(parents=True)
    table = {
        "question_id": ["31", "32"],
        "image": [{"bytes": encoded(), "path": FILE}] * 2,
        "answer": [["left cup", "the cup on the left"], ["tree"]],
        "bbox": [[20.0, 10.0, 40.0, 40.0], [0.0, 0.0, 20.0, 50.0]],
    }
    pq.write_table(pa.table(table), saved / "val-00000-of-00001.parquet")
    found = make(tmp_path / "saved", splits=("refcoco_val",)).examples()
    assert [example.name for example in found] == [
        *("refcoco_val/31/0", "refcoco_val/31/1", "refcoco_val/32/0")
    ]
    released = make(folder, splits=("refcoco_val",)).examples()
    assert [found[0].answer, found[2].answer] == [example.answer for example in released]
    assert found[0].facts == released[0].facts
    assert len({question_key(example) for example in found}) == 3


@pytest.mark.parametrize(
    ("said", "coordinates", "score"),
    [
        ("[0.1, 0.1, 0.3, 0.5]", "shares", 1.0),
        ("It is at (0.10,0.10),(0.30,0.50).", "shares", 1.0),
        ("[[0.1,.1],[0.3,0.5]]", "shares", 1.0),
        ('{"bbox_2d": [20, 10, 60, 50], "label": "cup"}', "pixels", 1.0),
        ("<box>(100,100),(300,500)</box>", "thousandths", 1.0),
        ("[0.1, 0.1, 0.3, 0.3] or [0.6, 0.6, 0.9, 0.9]", "shares", 1.0),
        ("[0.6, 0.6, 0.9, 0.9] or [0.1, 0.1, 0.3, 0.5]", "shares", 0.0),
        ("[0.1, 0.1, 0.3, 0.29]", "shares", 0.0),
        ("[0.3, 0.5, 0.1, 0.1]", "shares", 0.0),
        ("[0.6, 0.6, 0.9, 0.9]", "shares", 0.0),
        ("[20, 10, 60, 50]", "shares", 0.0),
    ],
)
def test_boxes_are_read_in_their_usual_spellings(folder, fakes, said, coordinates, score):
    """The first of two boxes counts; half of the height is enough, 0.19 of 0.40 is not."""
    task = make(folder, coordinates=coordinates)
    example = task.examples()[0]
    assert task.explain(example, fakes.make_reply(said)) is not None
    assert task.score(example, fakes.make_reply(said)) == score


def test_half_of_the_box_is_enough_and_less_is_not(fakes, tmp_path):
    write(tmp_path, "refcoco_val", [row("cup", [0, 0, 128, 64])])
    task = make(tmp_path, splits=("refcoco_val",), coordinates="pixels")
    [example] = task.examples()
    assert task.score(example, fakes.make_reply("[0, 0, 64, 64]")) == 1.0
    assert task.score(example, fakes.make_reply("[0, 0, 63, 64]")) == 0.0
    assert task.score(example, fakes.make_reply("[0, 0, 200, 100]")) == 0.0


def test_location_tokens_go_before_numbers_in_the_text(folder, fakes):
    task = make(folder)
    example = task.examples()[0]
    reply = fakes.make_reply("[0.6, 0.6, 0.9, 0.9]")
    box = Box(x0=0.1, y0=0.1, x1=0.3, y1=0.5, label="cup")
    reply = type(reply)(
        text=reply.text,
        pictures=(),
        features=(),
        finish_reason="stop",
        num_prompt_tokens=1,
        num_new_tokens=1,
        boxes=(box,),
    )
    assert task.explain(example, reply) == "[20, 10, 60, 50]"
    assert task.score(example, reply) == 1.0


def test_replies_without_a_box_are_counted_and_splits_weigh_alike(folder, fakes):
    said = {
        "refcoco_val/0": "[0.1, 0.1, 0.3, 0.5]",
        "refcoco_val/1": "To the left.",
        "refcoco+_testA/0": "[0.5, 0, 1, 1]",
    }
    task = make(folder)
    records = record_all(fakes, task, lambda example: said[example.name])
    figures = {figure.name: figure for figure in task.figures(records)}
    assert figures["ref_coco/refcoco_val"].value == 0.5
    assert figures["ref_coco/refcoco+"].value == 1.0
    assert figures["ref_coco"].value == 0.75
    assert next(iter(figures)) == "ref_coco"
    assert figures["ref_coco"].num_unread == 1


def test_guesses_score_what_chance_gives(tmp_path, fakes):
    """One of two halves of the picture: right every other time."""
    num, guess = 400, random.Random(2)
    halves = ([0, 0, 100, 100], [100, 0, 200, 100])
    write(tmp_path, "refcoco_val", [row(f"thing {n}", halves[n % 2]) for n in range(num)])
    task = make(tmp_path, splits=("refcoco_val",), coordinates="pixels")
    records = record_all(fakes, task, lambda example: str(guess.choice(halves)))
    value = task.figures(records)[0].value
    assert abs(value - 0.5) < 3 * math.sqrt(0.25 / num)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (row("cup", [20, 10, 20, 50]), r"row 1.*no area"),
        (row("cup", [20, 10, 20]), r"row 1.*four numbers"),
        (row("cup", None), r"row 1.*four numbers"),
        (row("cup", [0, 0, 9, 9], image="COCO_train2014_2.jpg"), r"COCO_train2014_2\.jpg"),
        ({"image": FILE, "bbox": [0, 0, 9, 9]}, r"row 1.*sent"),
    ],
)
def test_a_wrong_row_is_refused_with_its_place(folder, wrong, told):
    write(folder, "refcoco_val", [row("tree", [0, 0, 20, 50]), wrong])
    with pytest.raises(DataError, match=told):
        make(folder).examples()


def test_a_box_that_is_there_twice_is_refused(tmp_path):
    saved = tmp_path / "RefCOCO"
    saved.mkdir()
    table = {
        "question_id": ["31"] * 2,
        "image": [{"bytes": encoded(), "path": FILE}] * 2,
        "answer": [["cup"]] * 2,
        "bbox": [[20.0, 10.0, 40.0, 40.0]] * 2,
    }
    pq.write_table(pa.table(table), saved / "testA-00000-of-00001.parquet")
    with pytest.raises(DataError, match="'refcoco_testA/31/0' is there twice"):
        make(tmp_path, splits=("refcoco_testA",)).examples()


def test_what_is_missing_is_shown_in_the_tree(folder, tmp_path):
    with pytest.raises(DataError, match=r"(?s)nothing is there.*refcocog_test.jsonl"):
        make(tmp_path / "absent").examples()
    with pytest.raises(DataError, match=r"(?s)no refcoco_testA.jsonl.*RefCOCOplus"):
        make(folder, splits=SPLITS).examples()


@pytest.mark.parametrize(
    "wrong",
    [{"splits": ()}, {"splits": ("refcoco_dev",)}, {"coordinates": "percent"}, {"question": "?"}],
)
def test_nonsense_is_refused_early(folder, wrong):
    with pytest.raises(ConfigError, match="asked for"):
        make(folder, **wrong)
