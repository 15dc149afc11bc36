"""Published files in a folder, in a zip and alone; what is missing or broken is said."""

import json
import zipfile

import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate import benchmark_files
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles, check_names

LAYOUT = "quiz/\n└── test/a_test.csv"
CONTENT = {
    "quiz/test/a_test.csv": 'question,answer\n"One, two",3\n',
    "quiz/test/b_test.csv": "\ufeffquestion,answer\nFour,5\n",
    "quiz/info.json": '[{"n": 1}, {"n": 2}]',
    "quiz/lines.jsonl": '{"n": 1}\n\n{"n": 2}\n',
    "quiz/tab.tsv": "q\ta\n1\t2\n",
}


@pytest.fixture(params=["folder", "zip", "zip without its suffix", "folder around it"])
def files(request, tmp_path):
    """The same files, wherever they begin."""
    if request.param.startswith("zip"):
        with zipfile.ZipFile(tmp_path / "quiz.zip", "w") as archive:
            archive.mkdir("quiz")
            for name, text in CONTENT.items():
                archive.writestr(name, text)
            archive.writestr("__MACOSX/quiz/test/._a_test.csv", "junk")
        name = "quiz.zip" if request.param == "zip" else "quiz"
        return BenchmarkFiles(tmp_path / name, layout=LAYOUT)
    for name, text in CONTENT.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    inside = tmp_path if "around" in request.param else tmp_path / "quiz"
    return BenchmarkFiles(inside, layout=LAYOUT)


def write(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return BenchmarkFiles(folder / name, layout=LAYOUT)


def test_names_are_found_by_their_end_and_in_order(files):
    assert [name.rpartition("/")[2] for name in files.find("test/*_test.csv")] == [
        "a_test.csv",
        "b_test.csv",
    ]
    assert files.find_one("b_test.csv").endswith("test/b_test.csv")
    assert files.has("info.json")
    assert not files.has("*.parquet")


def test_rows_of_every_kind(files):
    assert list(files.rows(files.find_one("a_test.csv"))) == [
        {"question": "One, two", "answer": "3"}
    ]
    assert list(files.rows(files.find_one("b_test.csv"))) == [{"question": "Four", "answer": "5"}]
    assert list(files.rows(files.find_one("info.json"))) == [{"n": 1}, {"n": 2}]
    assert list(files.rows(files.find_one("lines.jsonl"))) == [{"n": 1}, {"n": 2}]
    assert list(files.rows(files.find_one("tab.tsv"))) == [{"q": "1", "a": "2"}]


def test_what_is_missing_is_told_with_what_is_expected(files):
    with pytest.raises(DataError, match=r"there is no \*_dev\.csv\. Put there.*\nquiz/\n└──"):
        files.find("*_dev.csv")
    with pytest.raises(DataError, match=r"there are 2 of \*_test\.csv: .*a_test\.csv, .*b_test"):
        files.find_one("*_test.csv")
    with pytest.raises(DataError, match="is no table that is known"):
        list(files.rows("quiz/readme.md"))


def test_a_place_with_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"asked for at .*gone, nothing is there"):
        BenchmarkFiles(tmp_path / "gone", layout=LAYOUT)


def test_columns_may_be_named_by_who_reads(tmp_path):
    files = write(tmp_path, "plain.csv", "a,1\nb,2\n")
    assert [row["answer"] for row in files.rows("plain.csv", fields=("question", "answer"))] == [
        "1",
        "2",
    ]


def test_a_cell_may_hold_lines_and_be_long(tmp_path):
    long = "x" * 200_000
    files = write(tmp_path, "long.csv", f'q,a\n"one\ntwo",{long}\n')
    [row] = files.rows("long.csv")
    assert row == {"q": "one\ntwo", "a": long}


@pytest.mark.parametrize("line", ["a,b,c", "a"])
def test_a_row_with_other_columns_is_told_with_its_line(tmp_path, line):
    files = write(tmp_path, "bad.csv", f"q,a\n1,2\n{line}\n")
    with pytest.raises(DataError, match=r"bad\.csv in .*, line 3: 2 columns are expected"):
        list(files.rows("bad.csv"))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("bad.jsonl", '{"n": 1}\n{"n": \n', r"bad\.jsonl line 2 in .* is no JSON"),
        ("bad.json", "{", r"bad\.json in .* is no JSON"),
        ("bad.json", '{"n": 1}', "is no list of rows"),
    ],
)
def test_broken_json_is_told(tmp_path, name, text, told):
    with pytest.raises(DataError, match=told):
        list(write(tmp_path, name, text).rows(name))


def test_what_is_no_text_is_told(tmp_path):
    (tmp_path / "bad.csv").write_bytes(b"q,a\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="is no UTF-8 text"):
        list(BenchmarkFiles(tmp_path, layout=LAYOUT).rows("bad.csv"))


def test_a_zip_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.csv", "q\n" + "x" * 100)
    monkeypatch.setattr(benchmark_files, "_MOST_BYTES", 50)
    with pytest.raises(DataError, match=r"is too large\. Unpack the zip"):
        BenchmarkFiles(tmp_path / "z.zip", layout=LAYOUT).read_bytes("a.csv")


@pytest.mark.parametrize("way", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip_is_told(tmp_path, way):
    with zipfile.ZipFile(tmp_path / "z.zip", "w", way) as archive:
        archive.writestr("a.csv", "".join(map(str, range(500))))
    data = bytearray((tmp_path / "z.zip").read_bytes())
    data[45:65] = b"\xff" * 20
    (tmp_path / "z.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.csv in .* cannot be read"):
        BenchmarkFiles(tmp_path / "z.zip", layout=LAYOUT).read_bytes("a.csv")


def test_a_saved_data_set_is_read_by_batches(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is in the extra `data`")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"q": ["one", "two"], "options": [["a", "b"], ["c"]]})
    parquet.write_table(table, tmp_path / "test-00000.parquet")
    with arrow.ipc.new_stream(tmp_path / "data.arrow", table.schema) as stream:
        stream.write_table(table)
    files = BenchmarkFiles(tmp_path, layout=LAYOUT)
    expected = [{"q": "one", "options": ["a", "b"]}, {"q": "two", "options": ["c"]}]
    assert list(files.rows("test-00000.parquet")) == expected
    assert list(files.rows("data.arrow")) == expected


@pytest.mark.parametrize("name", ["bad.parquet", "bad.arrow"])
def test_a_damaged_data_set_is_told(tmp_path, name):
    pytest.importorskip("pyarrow", reason="pyarrow is in the extra `data`")
    with pytest.raises(DataError, match="cannot be read"):
        list(write(tmp_path, name, "PAR1 or not").rows(name))


def test_one_file_is_a_benchmark_too(tmp_path):
    files = write(tmp_path, "a.json", json.dumps([{"n": 1}]))
    assert files.find("*.json") == ["a.json"]
    assert files.read_json("a.json") == [{"n": 1}]


def test_two_examples_of_one_name_are_refused():
    check_names(["a", "b"], "here")
    with pytest.raises(DataError, match="here: the example 'a' is there twice"):
        check_names(["a", "b", "a"], "here")
