import io
import math
import random
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.answer_book import question_key
from mllm_npu.evaluate.task import Record
from mllm_npu.evaluate.tasks.mme import KINDS, SUBTASKS, Mme
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.processing.conversation import ReadImage, Text
from mllm_npu.processing.raster import to_pillow

NESTED = ("posters", "celebrity", "scene", "landmark", "artwork")
END = "Please answer yes or no."


def encoded(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_subtask(root, subtask, pictures, nested=None):
    """Pictures by stem: their colour and the lines of their text."""
    nested = subtask in NESTED if nested is None else nested
    images = root / subtask / ("images" if nested else "")
    texts = root / subtask / ("questions_answers_YN" if nested else "")
    for folder in (images, texts):
        folder.mkdir(parents=True, exist_ok=True)
    for stem, (colour, text) in pictures.items():
        (images / f"{stem}.png").write_bytes(encoded(colour))
        (texts / f"{stem}.txt").write_text(text)


def pair(thing, other):
    return f"Is there a {thing}? {END}\tYes\nIs there a {other}? {END}\tNo\n"


@pytest.fixture
def release(tmp_path):
    """Two subtasks of perception and one of cognition, both nestings, names that come twice."""
    root = tmp_path / "MME_Benchmark_release_version"
    write_subtask(root, "existence", {"0001": ("red", pair("cat", "dog"))})
    write_subtask(
        root,
        "artwork",
        {"0001": ("blue", pair("boat", "tree")), "7": ("green", pair("hat", "cup"))},
    )
    write_subtask(root, "code_reasoning", {"0020": ("white", pair("loop", "list"))})
    (root / "eval_tool" / "Your_Results").mkdir(parents=True)
    (root / "eval_tool" / "Your_Results" / "existence.txt").write_text("0001.png\t?\tYes\tYes\n")
    return root


THREE = ("existence", "artwork", "code_reasoning")


def make(root, **changes):
    values = {"data": root, "options": GenerationOptions(max_new_tokens=5), "subtasks": THREE}
    return Mme(**{**values, **changes})


def record_all(fakes, task, say):
    """Records of every example, with what ``say`` makes of it."""
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


def test_both_nestings_are_read_and_both_questions_stand_side_by_side(release):
    examples = make(release).examples()
    assert [example.name for example in examples] == [
        "existence/0001/0",
        "existence/0001/1",
        "artwork/0001/0",
        "artwork/0001/1",
        "artwork/7/0",
        "artwork/7/1",
        "code_reasoning/0020/0",
        "code_reasoning/0020/1",
    ]
    assert [example.answer for example in examples] == ["Yes", "No"] * 4
    assert examples[2].groups == ("perception", "artwork")
    assert examples[7].groups == ("cognition", "code_reasoning")
    assert len({question_key(example) for example in examples}) == 8


def test_the_question_is_the_published_one_after_its_picture(release):
    example = make(release).examples()[0]
    [turn] = example.conversation.turns
    picture, text = turn.parts
    assert turn.role == "user"
    assert isinstance(picture, ReadImage)
    assert to_pillow(picture.picture).getpixel((0, 0)) == (255, 0, 0)
    assert text == Text(text="Is there a cat? Please answer yes or no.")
    [plain] = make(release, frame="plain").examples()[0].conversation.turns
    assert plain.role == "document"
    assert plain.parts[1] == text


def test_a_zip_holds_the_same(release, tmp_path):
    path = tmp_path / "mme.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in release.rglob("*.*"):
            archive.write(file, file.relative_to(release.parent))
    keys = [[question_key(e) for e in make(data).examples()] for data in (release, path)]
    texts = [
        [e.conversation.turns[0].parts[1] for e in make(d).examples()] for d in (release, path)
    ]
    assert texts[0] == texts[1]
    assert len(keys[0]) == len(set(keys[1])) == 8


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ("question_id", "image", "question", "answer", "category")
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in columns}), path)


def saved_row(number=0, category="existence", file="0001.png", colour="red", **changes):
    row = {
        "question_id": f"{category}/{file}",
        "image": {"bytes": encoded(colour), "path": file},
        "question": f"Is there a {('cat', 'dog')[number]}? {END}",
        "answer": ("Yes", "No")[number],
        "category": category,
    }
    return {**row, **changes}


def test_saved_rows_give_the_same_questions(release, tmp_path):
    write_rows(tmp_path / "saved/data/test-00000-of-00001.parquet", [saved_row(0), saved_row(1)])
    saved = make(tmp_path / "saved", subtasks=("existence",)).examples()
    released = make(release, subtasks=("existence",)).examples()
    assert [e.name for e in saved] == [e.name for e in released]
    assert [e.facts for e in saved] == [e.facts for e in released]
    assert [e.conversation.turns[0].parts[1] for e in saved] == [
        e.conversation.turns[0].parts[1] for e in released
    ]


def test_a_picture_with_three_rows_is_refused(tmp_path):
    rows = [saved_row(0), saved_row(1), saved_row(1)]
    write_rows(tmp_path / "data/test-00000-of-00001.parquet", rows)
    with pytest.raises(
        DataError, match=r"two questions with the answer Yes or No.*'Yes', 'No', 'No'"
    ):
        make(tmp_path, subtasks=("existence",)).examples()


def test_a_row_without_its_picture_is_refused(tmp_path):
    path = tmp_path / "data/test-00000-of-00001.parquet"
    write_rows(path, [saved_row(0, image={"bytes": None, "path": "0001.png"})])
    with pytest.raises(DataError, match="picture"):
        make(tmp_path, subtasks=("existence",)).examples()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Is there a cat?\tYes\n", "two questions"),
        ("Is there a cat?\tYes\nA dog?\tMaybe\n", "Maybe"),
        ("Is there a cat? Yes\nA dog?\tNo\n", "not a question, a tab, an answer"),
    ],
)
def test_a_broken_text_is_refused(release, text, told):
    (release / "existence/0001.txt").write_text(text)
    with pytest.raises(DataError, match=told):
        make(release).examples()


def test_blank_lines_at_the_end_of_a_text_do_not_count(release):
    (release / "existence/0001.txt").write_text(pair("cat", "dog") + "\n\n")
    assert len(make(release).examples()) == 8


def test_what_is_missing_is_shown_in_the_tree(release, tmp_path):
    with pytest.raises(DataError, match=r"(?s)nothing is there.*questions_answers_YN"):
        make(tmp_path / "absent").examples()
    with pytest.raises(DataError, match=r"(?s)there is no count/.*existence/"):
        make(release, subtasks=("existence", "count")).examples()
    (release / "artwork/images/7.png").unlink()
    with pytest.raises(DataError, match=r"7\.txt has no picture"):
        make(release).examples()


def test_only_subtasks_that_exist_can_be_asked_for(release):
    for subtasks in (("existance",), ()):
        with pytest.raises(ConfigError, match="code_reasoning"):
            make(release, subtasks=subtasks)


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ("No, there is none.", "no"),
        (" no\n", "no"),
        ("Not sure", "no"),
        ("I think yes", None),
        ("Oh, no.", None),
        ("(no)", "no"),
        ("", None),
        ("Maybe", None),
    ],
)
def test_a_reply_is_read_from_its_first_four_characters(release, fakes, said, understood):
    task = make(release)
    example = task.examples()[0]
    reply = fakes.make_reply(said)
    assert task.explain(example, reply) == understood
    assert task.score(example, reply) == float(understood == "yes")


def test_points_are_those_computed_by_hand(release, fakes):
    """existence: both right. artwork: one picture right, one half. code: one of two, one unread."""
    said = {
        "existence/0001/0": "Yes",
        "existence/0001/1": "No",
        "artwork/0001/0": "Yes",
        "artwork/0001/1": "no",
        "artwork/7/0": "yes",
        "artwork/7/1": "yes",
        "code_reasoning/0020/0": "Perhaps",
        "code_reasoning/0020/1": "No",
    }
    task = make(release)
    figures = by_name(task, record_all(fakes, task, lambda example: said[example.name]))
    assert figures["mme/existence"].value == 200
    assert figures["mme/artwork/acc"].value == 0.75
    assert figures["mme/artwork/acc_plus"].value == 0.5
    assert figures["mme/artwork"].value == 125
    assert figures["mme/code_reasoning"].value == 50
    assert figures["mme/perception"].value == 325
    assert figures["mme/cognition"].value == 50
    assert figures["mme"].value == 375
    assert next(iter(figures)) == "mme"
    assert figures["mme"].num_unread == figures["mme/code_reasoning"].num_unread == 1
    assert figures["mme/existence"].num_unread == 0
    assert figures["mme"].num == 8
    assert [figures[name].level for name in ("mme", "mme/perception", "mme/artwork")] == [0, 1, 2]
    assert "400 at most" in figures["mme/perception"].title


def test_submissions_are_the_lines_that_the_official_tool_reads(release, fakes):
    task = make(release)
    records = record_all(fakes, task, lambda example: "Yes,\tit is\nthere")
    files = task.submissions(records)
    assert sorted(files) == ["mme/artwork.txt", "mme/code_reasoning.txt", "mme/existence.txt"]
    assert files["mme/existence.txt"] == (
        "0001.png\tIs there a cat? Please answer yes or no.\tYes\tYes, it is there\n"
        "0001.png\tIs there a dog? Please answer yes or no.\tNo\tYes, it is there\n"
    )


def test_guesses_score_what_chance_gives(tmp_path, fakes):
    """Acc is 50 and acc+ 25 by chance, so 75 of 200."""
    num, guess = 300, random.Random(0)
    pictures = {str(number): ("red", pair(number, number)) for number in range(num)}
    write_subtask(tmp_path, "count", pictures)
    task = make(tmp_path, subtasks=("count",))
    records = record_all(fakes, task, lambda example: guess.choice(("Yes", "No")))
    figures = by_name(task, records)
    acc, acc_plus = figures["mme/count/acc"].value, figures["mme/count/acc_plus"].value
    assert abs(acc - 0.5) < 3 * math.sqrt(0.25 / (2 * num))
    assert abs(acc_plus - 0.25) < 3 * math.sqrt(0.25 * 0.75 / num)
    assert figures["mme"].value == pytest.approx(100 * (acc + acc_plus), abs=1e-2)
    low, high = figures["mme"].interval
    assert low < 75 < high


def test_there_are_ten_subtasks_of_perception_and_four_of_cognition():
    assert [len(subtasks) for subtasks in KINDS.values()] == [10, 4]
    assert len(set(SUBTASKS)) == 14
