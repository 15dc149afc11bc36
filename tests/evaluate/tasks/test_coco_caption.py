import io
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.answer_book import question_key
from mllm_npu.evaluate.task import Record
from mllm_npu.evaluate.tasks.coco_caption import CocoCaption
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage, Text

QUESTION = "Provide a one-sentence caption for the provided image."
CAPTIONS = {7: ["A dog runs.", "The dog\nis running."], 9: ["Two boats lie.", "Boats in a harbour"]}


def file_of(number):
    return f"COCO_val2014_{number:012d}.jpg"


def encoded(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for name in ("val2014", "annotations"):
        (tmp_path / name).mkdir()
    for number, colour in ((7, "red"), (9, "blue")):
        (tmp_path / "val2014" / file_of(number)).write_bytes(encoded(colour))
    write_karpathy(tmp_path, [karpathy(7), karpathy(9), karpathy(11, split="train")])
    write_official(tmp_path)
    return tmp_path


def karpathy(number, split="test", captions=None):
    own = CAPTIONS.get(number, []) if captions is None else captions
    return {
        "filepath": "val2014",
        "filename": file_of(number),
        "cocoid": number,
        "split": split,
        "sentences": [{"raw": caption, "tokens": []} for caption in own],
    }


def write_karpathy(folder, images):
    (folder / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))


def write_official(folder):
    content = {
        "images": [{"id": number, "file_name": file_of(number)} for number in CAPTIONS],
        "annotations": [
            {"image_id": number, "id": 10 * number + place, "caption": caption}
            for number, own in CAPTIONS.items()
            for place, caption in enumerate(own)
        ],
    }
    (folder / "annotations/captions_val2014.json").write_text(json.dumps(content))


def make(root, **changes):
    return CocoCaption(**{"data": root, "options": GenerationOptions(), **changes})


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


def test_pictures_of_the_split_are_asked_about_with_the_question(folder):
    examples = make(folder).examples()
    assert [example.name for example in examples] == ["7", "9"]
    assert examples[0].answer == "A dog runs.\nThe dog is running."
    [turn] = examples[0].conversation.turns
    picture, text = turn.parts
    assert turn.role == "user"
    assert isinstance(picture, ReadImage)
    assert text == Text(text=QUESTION)
    assert len({question_key(example) for example in examples}) == 2


def test_a_bare_model_sees_the_picture_alone(folder):
    [turn] = make(folder, frame="plain", question="").examples()[0].conversation.turns
    assert turn.role == "document"
    assert len(turn.parts) == 1


def test_official_annotations_and_saved_rows_give_the_same(folder, tmp_path):
    saved = tmp_path / "saved" / "data"
    saved.mkdir(parents=True)
    table = {
        "question_id": [file_of(number) for number in CAPTIONS],
        "file_name": [file_of(number) for number in CAPTIONS],
        "answer": list(CAPTIONS.values()),
        "image": [{"bytes": encoded(colour), "path": None} for colour in ("red", "blue")],
    }
    pq.write_table(pa.table(table), saved / "val-00000-of-00001.parquet")
    first, *others = (
        [(example.name, example.answer) for example in task.examples()]
        for task in (
            make(folder),
            make(folder, split="val2014"),
            make(saved.parent, split="val2014"),
        )
    )
    assert all(other == first for other in others)


def test_numbers_are_those_computed_by_hand(folder, fakes):
    """BLEU-1: 4 of 4 words, and these stand for 3 + 3 (the closest references): exp(1 - 6 / 4).

    ROUGE-L of "boats": precision 1, recall 1/3.
    """
    task = make(folder)
    records = record_all(fakes, task, ["A dog runs.", "boats"])
    figures = {figure.name: figure for figure in task.figures(records)}
    assert list(figures) == [
        "coco_caption",
        *(f"coco_caption/bleu_{size}" for size in (4, 3, 2, 1)),
        "coco_caption/rouge_l",
    ]
    assert figures["coco_caption/bleu_1"].value == pytest.approx(0.60653, abs=1e-5)
    half = (1 + 1.44) * 1 * (1 / 3) / (1 / 3 + 1.44)
    assert records[1].score == pytest.approx(half)
    assert figures["coco_caption/rouge_l"].value == pytest.approx((1 + half) / 2, abs=1e-5)
    assert figures["coco_caption"].num == 2
    assert figures["coco_caption"].num_unread == 0


def test_cider_knows_all_pictures_of_the_split(folder, fakes):
    """Of "a dog runs" the word "a" is in both pictures' captions and counts nothing.

    With the first caption words, pairs and triples agree: 3. With the second only "dog" does, one
    of two words here and one of four there, in a caption that is one word longer.
    """
    task = make(folder)
    figures = task.figures(record_all(fakes, task, ["a dog runs", ""]))
    second = 1 / math.sqrt(2 * 4) * math.exp(-1 / 72)
    first = 10 / 8 * (3 + second)
    assert figures[0].value == pytest.approx(first / 2, abs=1e-4)


def test_a_reply_without_a_word_is_counted(folder, fakes):
    task = make(folder)
    records = record_all(fakes, task, ["A dog\nruns", "..."])
    assert [record.understood for record in records] == ["A dog runs", None]
    assert task.figures(records)[0].num_unread == 1
    files = task.submissions(records)
    assert json.loads(files["captions_karpathy_test_mllm-npu_results.json"]) == [
        {"image_id": 7, "caption": "A dog runs"},
        {"image_id": 9, "caption": ""},
    ]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (karpathy(7), "'7' is there twice"),
        (karpathy(12, captions=["A hat."]), r"000000000012\.jpg"),
        (karpathy(7, captions=[]), "no caption of people"),
        ({"split": "test", "filename": file_of(7)}, r"images 3.*sentences"),
    ],
)
def test_a_wrong_row_is_refused_with_its_place(folder, wrong, told):
    write_karpathy(folder, [karpathy(7), karpathy(9), karpathy(11, split="train"), wrong])
    with pytest.raises(DataError, match=told):
        make(folder).examples()


def test_what_is_missing_is_shown_in_the_tree(folder, tmp_path):
    with pytest.raises(DataError, match=r"(?s)nothing is there.*dataset_coco.json"):
        make(tmp_path / "absent").examples()
    with pytest.raises(DataError, match=r"(?s)no captions_val2017.json.*annotations/"):
        make(folder, split="val2017").examples()
    with pytest.raises(DataError, match="split 'karpathy_tset' has no picture"):
        make(folder, split="karpathy_tset").examples()
    (folder / "dataset_coco.json").write_text("[]")
    with pytest.raises(DataError, match="no list under 'images'"):
        make(folder).examples()
