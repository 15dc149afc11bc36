"""Two evaluations are set side by side from the command line."""

import json

import pytest

from mllm_npu.cli import main


def write(folder, scores, *, task="quiz", **changes):
    folder.mkdir(parents=True)
    said = {"question": ["Which?"], "answer": "a", "reply": "r", "understood": "r"}
    lines = [
        json.dumps({"task": task, "example": f"e{n}", "score": float(s), **said, **changes}) + "\n"
        for n, s in enumerate(scores)
    ]
    (folder / "records.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def sides(tmp_path):
    write(tmp_path / "a", "00000000111", task="digits")
    write(tmp_path / "a" / "evaluation", "0" * 8 + "11")
    write(tmp_path / "b", "1" * 8 + "11")
    return tmp_path / "a", tmp_path / "b"


def test_the_table_and_the_page_say_where_they_part(sides, capsys):
    assert main(["evaluate", "compare", *map(str, sides)]) == 0
    said = capsys.readouterr().err
    assert "0.0078" in said
    assert "+0.8" in said
    assert "A: evaluation" in said
    assert "p by exact McNemar: quiz" in said
    page = sides[1] / "compare.html"
    assert f"page: {page}" in said
    assert page.read_text().count('class="flip"') == 8


def test_machines_get_one_line_and_people_a_page_where_they_want_it(sides, tmp_path, capsys):
    page = tmp_path / "pages" / "page.html"
    typed = ["evaluate", "compare", *map(str, sides), "--json", "--out", str(page)]
    assert main(typed) == 0
    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()
    told = json.loads(line)
    assert told["a"]["folder"] == str(sides[0] / "evaluation")
    [task] = told["tasks"]
    assert (task["task"], task["num"], task["num_higher"], task["num_lower"]) == ("quiz", 10, 8, 0)
    assert task["p_value"] == pytest.approx(2 / 256)
    assert page.is_file()
    assert not (sides[1] / "compare.html").exists()


def test_the_data_of_a_run_is_named_by_its_file(sides, tmp_path, capsys):
    write(tmp_path / "c", "1" * 11, task="digits")
    records = sides[0] / "records.jsonl"
    assert main(["evaluate", "compare", str(records), str(tmp_path / "c")]) == 0
    assert "digits" in capsys.readouterr().err


def test_a_mistake_is_one_line_and_exits_with_two(sides, tmp_path, capsys):
    assert main(["evaluate", "compare", str(sides[0]), str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("DataError: Records of an evaluation were asked for in")
    assert len(error.strip().splitlines()) == 1
    assert main(["evaluate", "compare", str(sides[0])]) == 2
    assert "Missing argument 'B'" in capsys.readouterr().err
    write(tmp_path / "d", "1", task="other")
    assert main(["evaluate", "compare", str(sides[0]), str(tmp_path / "d")]) == 2
    assert "no example in common" in capsys.readouterr().err
