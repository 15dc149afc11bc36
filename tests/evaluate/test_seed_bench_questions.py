import io
import json

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.seed_bench_questions import DIMENSIONS, LEVELS, read_questions
from mllm_npu.processing.raster import to_pillow


def encoded(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def row(number, dimension, pictures, **changes):
    level = "L1" if dimension <= 22 else "L2" if dimension <= 24 else "L3"
    values = {
        "answer": "A",
        **{f"choice_{letter}": f"choice {letter}" for letter in "abcd"},
        "data_id": pictures,
        "data_source": "SEED-Bench v2",
        "level": level,
        "question": "Why?",
        "question_id": f"{dimension}_{number}",
        "question_type_id": dimension,
        "subpart": "Video & Text Comprehension",
    }
    return {**values, **changes}


def write(root, rows, pictures=("p/1.png", "p/2.png", "p/3.png", "p/4.png", "p/5.png")):
    root.mkdir(parents=True, exist_ok=True)
    content = {"questions": rows, "question_type": {}}
    (root / "SEED-Bench_v2_level1_2_3.json").write_text(json.dumps(content))
    for name in pictures:
        path = root / "SEED-Bench-2-image" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded("red"))
    return root


def test_there_are_27_dimensions():
    assert len(set(DIMENSIONS)) == 27
    assert DIMENSIONS[16] == "Difference Spotting"


def test_the_levels_that_are_asked_for_are_read(tmp_path):
    rows = [row(0, 5, "p/1.png"), row(0, 23, ["p/1.png"]), row(0, 25, ["p/1.png"] * 4)]
    write(tmp_path, rows)
    assert [one.level for one in read_questions(tmp_path, LEVELS[:2])] == ["L1", "L2"]
    questions = list(read_questions(tmp_path, LEVELS))
    assert [one.dimension for one in questions] == [
        "Instances Counting",
        "In-Context Captioning",
        "Text-to-Image Generation",
    ]
    assert questions[0].where == "SEED-Bench_v2_level1_2_3.json question 1"


def test_a_picture_without_an_ending_comes_from_its_own_folder(tmp_path):
    write(tmp_path, [row(0, 5, "1.png", data_source="cc3m")], ["1.png"])
    (tmp_path / "cc3m-image").mkdir()
    (tmp_path / "cc3m-image" / "1.png").write_bytes(encoded("blue"))
    [question] = read_questions(tmp_path, LEVELS)
    assert to_pillow(question.shown[0]).getpixel((0, 0)) == (0, 0, 255)


def test_pictures_under_another_folder_are_found(tmp_path):
    write(tmp_path, [row(0, 5, "p/1.png")])
    (tmp_path / "SEED-Bench-2-image").rename(tmp_path / "unpacked")
    [question] = read_questions(tmp_path, LEVELS)
    assert question.shown[0].size == (6, 4)


def test_the_last_four_pictures_are_chosen_from(tmp_path):
    names = [f"p/{number}.png" for number in range(1, 6)]
    write(tmp_path, [row(0, 26, names), row(0, 27, names[:4])])
    following, both = read_questions(tmp_path, LEVELS)
    assert (len(following.shown), len(following.pictures), following.texts) == (1, 4, ())
    assert (len(both.shown), len(both.pictures), len(both.texts)) == (0, 4, 4)
    assert (following.kind, both.kind) == ("draw what is next", "write and draw")


def test_a_saved_data_set_has_its_pictures_in_it(tmp_path):
    cells = [{"bytes": encoded(colour), "path": None} for colour in ("red", "blue")]
    rows = [{**row(0, 17, ["p/1.png", "p/2.png"]), "image": cells}]
    (tmp_path / "data").mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "test-0.parquet")
    [question] = read_questions(tmp_path, LEVELS)
    assert to_pillow(question.shown[1]).getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question_type_id": 28}, "question 1: question_type_id is '28', it should be a number"),
        ({"answer": "E"}, "question 1: the answer is 'E', it should be A, B, C or D"),
        ({"data_source": "other"}, "question 1: data_source is 'other'"),
        ({"data_id": ["p/9.png"]}, r"question 1 names p/9\.png, which is not there"),
        ({"question_type_id": 25}, "question 1: 4 pictures to choose from are expected"),
        ({"question": None}, "question 1: the field 'question' should be a text"),
        ({"choice_d": None}, "question 1: the field 'choice_d' should be a text"),
    ],
)
def test_broken_questions_are_named(changes, message, tmp_path):
    write(tmp_path, [row(0, 5, "p/1.png", **changes)])
    with pytest.raises(DataError, match=message):
        list(read_questions(tmp_path, LEVELS))


def test_a_file_without_questions_is_refused(tmp_path):
    (tmp_path / "SEED-Bench_v2_level1_2_3.json").write_text("{}")
    with pytest.raises(DataError, match='has no list "questions"'):
        list(read_questions(tmp_path, LEVELS))


def test_a_missing_folder_shows_the_tree(tmp_path):
    with pytest.raises(DataError, match=r"nothing is there.*\nSEED-Bench_v2_level1_2_3\.json"):
        list(read_questions(tmp_path / "none", LEVELS))
