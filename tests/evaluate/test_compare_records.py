"""Records are read back from the folder of an evaluation, of a run, or of older versions."""

import json

import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.compare_records import read_evaluation


def line(example="e0", **changes):
    values = {
        "task": "quiz",
        "example": example,
        "question": ["Which?"],
        "answer": "a",
        "reply": "b",
        "num_pictures": 0,
        "understood": "b",
        "score": 0.0,
    }
    return json.dumps({**values, **changes}, ensure_ascii=False) + "\n"


def write(folder, *lines, report=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.jsonl").write_text("".join(lines), encoding="utf-8")
    if report is not None:
        (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_a_line_is_read_as_it_was_written(tmp_path):
    folder = write(
        tmp_path / "a",
        line(
            question=["I", "s1", "s2", "Q"],
            shots=[1, 2],
            groups=["stem", "maths"],
            refused="too long",
            understood=None,
            num_pictures=1,
            pictures_read=["r.png"],
            pictures_drawn=["d.png"],
            pictures_wanted=["w.png"],
            reply="a\u2028b",
        ),
        line("e1", task="other", score=0.25),
        report={"model": "big", "figures": {"quiz": 0.5}},
    )
    found = read_evaluation(folder)
    assert (found.name, found.folder, found.figures) == ("big", folder, {"quiz": 0.5})
    assert {task: list(lines) for task, lines in found.tasks.items()} == {
        "quiz": ["e0"],
        "other": ["e1"],
    }
    first = found.tasks["quiz"]["e0"]
    assert (first.question, first.num_shots) == (("I", "Q"), 2)
    assert (first.groups, first.refused) == (("stem", "maths"), "too long")
    assert (first.read, first.drawn, first.wanted) == (("r.png",), ("d.png",), ("w.png",))
    assert (first.understood, first.num_pictures, first.reply) == (None, 1, "a\u2028b")
    assert found.tasks["other"]["e1"].score == 0.25
    assert found.pictures == folder / "pictures"


def test_lines_of_before_have_fewer_fields(tmp_path):
    found = read_evaluation(write(tmp_path / "old", line(), "\n"))
    first = found.tasks["quiz"]["e0"]
    assert (first.num_shots, first.groups, first.read, first.refused) == (0, (), (), None)
    assert (found.name, found.figures) == ("old", {})


def test_of_a_run_its_benchmarks_come_before_its_own_data(tmp_path):
    write(tmp_path / "run", line(task="digits"))
    assert list(read_evaluation(tmp_path / "run").tasks) == ["digits"]
    write(tmp_path / "run" / "evaluation", line())
    assert list(read_evaluation(tmp_path / "run").tasks) == ["quiz"]
    assert list(read_evaluation(tmp_path / "run" / "evaluation").tasks) == ["quiz"]
    assert list(read_evaluation(tmp_path / "run" / "evaluation" / "records.jsonl").tasks) == [
        "quiz"
    ]


def test_the_data_of_a_run_can_be_named_where_there_are_benchmarks_too(tmp_path):
    write(tmp_path / "run" / "evaluation", line())
    write(tmp_path / "run", line(task="digits"))
    assert list(read_evaluation(tmp_path / "run" / "records.jsonl").tasks) == ["digits"]


def test_a_folder_without_records_says_how_to_make_them(tmp_path):
    with pytest.raises(DataError, match=r"there is no records\.jsonl.*mllm-npu evaluate"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("nonsense\n", "line 2 is no record"),
        ('{"task": "quiz"}\n', "line 2 is no record"),
        ("[]\n", "line 2 is no record"),
        (line("e1", score=None), "line 2 is no record"),
        (line("e1", score="NaN"), "its score is nan"),
        (line("e0"), "the example 'e0' of quiz is there twice"),
    ],
)
def test_a_line_that_is_no_record_is_told(tmp_path, bad, told):
    with pytest.raises(DataError, match=told):
        read_evaluation(write(tmp_path, line(), bad))


def test_a_report_that_is_no_json_is_told(tmp_path):
    write(tmp_path, line())
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(DataError, match=r"report\.json is no JSON"):
        read_evaluation(tmp_path)
    (tmp_path / "records.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=r"records\.jsonl cannot be read"):
        read_evaluation(tmp_path)
