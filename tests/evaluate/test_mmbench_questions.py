import base64
import io

import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.mmbench_questions import read_mmbench

COLUMNS = [
    *("index", "question", "hint", "A", "B", "C", "D"),
    *("answer", "category", "image", "l2-category"),
]


def base64_of(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def row(index, **changes):
    values = {
        "index": index,
        "question": "Which colour?",
        "hint": "",
        **dict(zip("ABCD", ("red", "blue", "", ""), strict=True)),
        "answer": "A",
        "category": "color",
        "image": base64_of("red"),
        "l2-category": "perception",
    }
    return {**values, **changes}


def write(path, *rows):
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(str(one.get(name, "")) for name in COLUMNS) for one in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def orders(path, split="dev", language="en"):
    return [(q.number, q.choices, q.answer) for q in read_mmbench(path, split, language)]


def test_one_row_gets_its_rotations(tmp_path):
    write(tmp_path / "mmbench_dev_en_1.tsv", row(7, C="lime", answer="C"))
    assert orders(tmp_path) == [
        (7, ("red", "blue", "lime"), "C"),
        (1000007, ("blue", "lime", "red"), "B"),
        (2000007, ("lime", "red", "blue"), "A"),
    ]


def test_published_rotations_are_taken_as_they_are_side_by_side(tmp_path):
    write(
        tmp_path / "MMBench_DEV_EN.tsv",
        row(7),
        row(8, answer="B"),
        row(1000008, A="blue", B="red", answer="A"),
        row(1000007, A="blue", B="red", answer="B", image="7"),
    )
    assert orders(tmp_path) == [
        (7, ("red", "blue"), "A"),
        (1000007, ("blue", "red"), "B"),
        (8, ("red", "blue"), "B"),
        (1000008, ("blue", "red"), "A"),
    ]
    names = {question.name for question in read_mmbench(tmp_path, "dev", "en")}
    assert names == {"7", "8"}


def test_the_table_of_split_and_language_is_chosen(tmp_path):
    write(tmp_path / "mmbench_dev_en_20231003.tsv", row(1))
    write(tmp_path / "mmbench_dev_cn_20231003.tsv", row(2))
    write(tmp_path / "mmbench_test_en_20231003.tsv", row(3, answer=""))
    assert orders(tmp_path)[0][0] == 1
    assert orders(tmp_path, language="cn")[0][0] == 2
    assert orders(tmp_path, split="test")[0] == (3, ("red", "blue"), "")
    with pytest.raises(DataError, match="0 tables are of the split 'test' in 'cn'"):
        orders(tmp_path, split="test", language="cn")


def test_the_first_edition_names_no_language(tmp_path):
    write(tmp_path / "mmbench_dev_20230712.tsv", row(1))
    assert orders(tmp_path)[0][0] == 1
    with pytest.raises(DataError, match="0 tables"):
        orders(tmp_path, language="cn")


def test_two_editions_are_not_mixed(tmp_path):
    first = write(tmp_path / "MMBench_DEV_EN.tsv", row(1))
    write(tmp_path / "MMBench_DEV_EN_V11.tsv", row(2))
    with pytest.raises(DataError, match=r"2 tables are of the split.*give data=FILE"):
        orders(tmp_path)
    assert orders(first)[0][0] == 1


def test_a_choice_called_none_is_a_choice(tmp_path):
    write(tmp_path / "mmbench_dev_en_1.tsv", row(1, B="None", C="nan"))
    assert orders(tmp_path)[0][1] == ("red", "None")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), row(1)], r"row 2: the index 1 is there twice"),
        ([row(1000001)], r"row 1: index 1000001 rotates the question 1, which is not there"),
        ([row("x")], r"row 1: the index is 'x', it should be a number"),
        ([row(1, answer="C")], r"row 1: the right answer is 'C' and the choices are"),
        ([row(1, B="")], r"row 1: the right answer is 'A' and the choices are \['red'\]"),
        ([row(1, image="9")], r"row 1: its picture is that of the row with index 9"),
        ([row(1, image="!" * 80)], r"row 1: its picture is no base64"),
        ([row(1, image=base64.b64encode(b"text" * 30).decode())], r"row 1: its picture cannot be"),
    ],
)
def test_broken_rows_are_named(rows, message, tmp_path):
    write(tmp_path / "mmbench_dev_en_1.tsv", *rows)
    with pytest.raises(DataError, match=rf"mmbench_dev_en_1\.tsv {message}"):
        orders(tmp_path)


def test_a_column_that_is_missing_is_named(tmp_path):
    path = tmp_path / "mmbench_dev_en_1.tsv"
    path.write_text(f"index\tA\tB\timage\n1\tred\tblue\t{base64_of('red')}\n")
    with pytest.raises(DataError, match="row 1: the field 'question' was asked for"):
        orders(tmp_path)


def test_a_missing_folder_shows_the_tree(tmp_path):
    with pytest.raises(DataError, match=r"nothing is there.*\nmmbench_dev_en_20231003\.tsv"):
        orders(tmp_path / "none")
