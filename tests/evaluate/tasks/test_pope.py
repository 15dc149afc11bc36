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
from mllm_npu.evaluate.tasks.pope import SUBSETS, Pope
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage, Text


def encoded(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def line(number, thing, label, image="COCO_val2014_000000000001.jpg"):
    row = {"question_id": number, "image": image, "text": f"Is there a {thing}?", "label": label}
    return json.dumps(row)


def write(root, subset, lines):
    (root / "val2014").mkdir(parents=True, exist_ok=True)
    for number, colour in ((1, "red"), (2, "blue")):
        (root / f"val2014/COCO_val2014_00000000000{number}.jpg").write_bytes(encoded(colour))
    (root / f"coco_pope_{subset}.json").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    second = "COCO_val2014_000000000002.jpg"
    write(
        tmp_path,
        "random",
        [
            line(1, "cat", "yes"),
            line(2, "sofa", "no"),
            line(3, "cat", "yes", second),
            line(4, "lamp", "no", second),
        ],
    )
    write(tmp_path, "popular", [line(1, "cat", "yes"), line(2, "person", "no")])
    return tmp_path


def make(root, **changes):
    values = {"data": root, "options": GenerationOptions(), "subsets": ("random", "popular")}
    return Pope(**{**values, **changes})


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


def by_name(task, records):
    return {figure.name: figure for figure in task.figures(records)}


def test_questions_of_all_subsets_are_asked_with_their_pictures(folder):
    examples = make(folder).examples()
    assert [e.name for e in examples] == [
        *(f"random/{number}" for number in (1, 2, 3, 4)),
        *("popular/1", "popular/2"),
    ]
    assert [e.answer for e in examples] == ["yes", "no", "yes", "no", "yes", "no"]
    picture, text = examples[1].conversation.turns[0].parts
    assert isinstance(picture, ReadImage)
    assert picture.picture.size == (6, 4)
    assert text == Text(text="Is there a sofa?")


def test_one_question_about_two_pictures_is_two_questions(folder):
    keys = {e.name: question_key(e) for e in make(folder).examples()}
    assert keys["random/1"] != keys["random/3"]
    assert keys["random/1"] == keys["popular/1"]


def test_a_hint_is_a_line_of_its_own(folder):
    examples = make(folder, hint="Answer with one word.", frame="plain").examples()
    [turn] = examples[0].conversation.turns
    assert turn.role == "document"
    assert turn.parts[1] == Text(text="Is there a cat?\nAnswer with one word.")


def test_saved_rows_give_the_same_questions(folder, tmp_path):
    rows = [
        {
            "question_id": str(number),
            "question": f"Is there a {thing}?",
            "answer": label,
            "image_source": "COCO_val2014_000000000001",
            "image": {"bytes": encoded("red"), "path": "a.jpg"},
            "category": category,
        }
        for number, thing, label, category in (
            (1, "cat", "yes", "popular"),
            (2, "person", "No", "popular"),
            (1, "tie", "no", "adversarial"),
        )
    ]
    saved = tmp_path / "saved" / "data"
    saved.mkdir(parents=True)
    path = saved / "test-00000-of-00001.parquet"
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), path)
    found = make(saved.parent, subsets=("popular",)).examples()
    released = make(folder, subsets=("popular",)).examples()
    assert [(e.name, e.answer, e.groups) for e in found] == [
        (e.name, e.answer, e.groups) for e in released
    ]
    assert [question_key(e) for e in found] != []
    assert [e.conversation.turns[0].parts[1] for e in found] == [
        e.conversation.turns[0].parts[1] for e in released
    ]
    with pytest.raises(DataError, match="no question of the subset 'random'"):
        make(saved.parent).examples()


@pytest.mark.parametrize(
    ("said", "counted", "understood"),
    [
        ("Yes", "yes", "yes"),
        ("No", "no", "no"),
        ("no, there is none", "no", "no"),
        ("There is not. Yes.", "no", "no"),
        ("Yes. But not a big one.", "yes", "yes"),
        ("Nothing", "yes", None),
        ("", "yes", None),
    ],
)
def test_replies_are_read_as_the_official_script_does(folder, fakes, said, counted, understood):
    task = make(folder)
    there, absent = task.examples()[:2]
    reply = fakes.make_reply(said)
    assert task.score(there, reply) == float(counted == "yes")
    assert task.score(absent, reply) == float(counted == "no")
    assert task.explain(there, reply) == understood


def test_numbers_are_those_computed_by_hand(folder, fakes):
    """random: 2 hits, 1 false, 1 right no. popular: 1 missed, 1 false (unread)."""
    said = {
        "random/1": "Yes",
        "random/2": "Yes",
        "random/3": "yes",
        "random/4": "No",
        "popular/1": "No",
        "popular/2": "Hm",
    }
    task = make(folder)
    figures = by_name(task, record_all(fakes, task, lambda example: said[example.name]))
    assert figures["pope/random"].value == pytest.approx(2 * 2 / (2 * 2 + 1), abs=1e-5)
    assert figures["pope/random/accuracy"].value == 0.75
    assert figures["pope/random/precision"].value == pytest.approx(2 / 3, abs=1e-5)
    assert figures["pope/random/recall"].value == 1
    assert figures["pope/random/yes_ratio"].value == 0.75
    assert [figures[f"pope/popular{key}"].value for key in ("", "/accuracy", "/recall")] == [0] * 3
    assert figures["pope/popular/yes_ratio"].value == 0.5
    assert figures["pope"].value == pytest.approx(0.4)
    assert next(iter(figures)) == "pope"
    assert [figures[name].num_unread for name in ("pope", "pope/random")] == [1, 0]
    assert [figures[name].level for name in ("pope", "pope/random", "pope/random/recall")] == [
        *(0, 1, 2)
    ]


def test_submissions_are_answers_in_the_order_of_the_questions(folder, fakes):
    task = make(folder)
    files = task.submissions(record_all(fakes, task, lambda example: example.answer))
    assert sorted(files) == [
        "pope/coco_pope_popular_answers.json",
        "pope/coco_pope_random_answers.json",
    ]
    lines = files["pope/coco_pope_popular_answers.json"].splitlines()
    assert [json.loads(each) for each in lines] == [
        {"question": "Is there a cat?", "answer": "yes"},
        {"question": "Is there a person?", "answer": "no"},
    ]


def test_guesses_score_what_chance_gives(tmp_path, fakes):
    num, guess = 400, random.Random(1)
    lines = [line(number, number, ("yes", "no")[number % 2]) for number in range(num)]
    write(tmp_path, "random", lines)
    task = make(tmp_path, subsets=("random",))
    records = record_all(fakes, task, lambda example: guess.choice(("Yes", "No")))
    figures = by_name(task, records)
    for name, chances in (("accuracy", num), ("yes_ratio", num), ("recall", num // 2)):
        value = figures[f"pope/random/{name}"].value
        assert abs(value - 0.5) < 3 * math.sqrt(0.25 / chances), name


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (line(1, "dog", "no"), r"random/1.*twice"),
        (line(9, "dog", "perhaps"), r"line 5.*'perhaps', not yes or no"),
        (line(9, "dog", "no", "COCO_val2014_000000000009.jpg"), r"000000000009\.jpg"),
        ("{", r"coco_pope_random.json line 5 is no JSON"),
        ('{"question_id": 9}', r"line 5.*image"),
    ],
)
def test_a_wrong_line_is_refused_with_its_place(folder, wrong, told):
    path = folder / "coco_pope_random.json"
    path.write_text(path.read_text() + wrong + "\n")
    with pytest.raises(DataError, match=told):
        make(folder).examples()


def test_what_is_missing_is_shown_in_the_tree(folder, tmp_path):
    with pytest.raises(DataError, match=r"(?s)nothing is there.*coco_pope_popular.json"):
        make(tmp_path / "absent").examples()
    with pytest.raises(DataError, match=r"(?s)no coco_pope_adversarial.json.*COCO_val2014_"):
        make(folder, subsets=SUBSETS).examples()
    with pytest.raises(ConfigError, match="adversarial"):
        make(folder, subsets=("rare",))
