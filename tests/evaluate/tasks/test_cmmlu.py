"""Invented questions in the layout of CMMLU, and the published files where they are."""

import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.task import Record
from mllm_npu.evaluate.tasks.cmmlu import CMMLU
from mllm_npu.evaluate.tasks.cmmlu_subjects import SUBJECTS
from mllm_npu.inference.options import GenerationOptions

GOLDEN = (
    "以下是关于高中物理学的单项选择题，请直接给出正确答案的选项。\n\n"
    "题目：high_school_physics的例题0\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案是：B\n\n"
    "题目：high_school_physics的例题1\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案是：C\n\n"
    "题目：high_school_physics的问题0\nA. 东\nB. 南\nC. 西\nD. 北\n答案是："
)
HEAD = ",Question,A,B,C,D,Answer\n"


def write_cmmlu(folder, sizes):
    """Two solved questions of each subject, and as many others as are told (one if nothing is)."""
    for part in ("dev", "test"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for subject in SUBJECTS:
        solved = [f"{n},{subject}的例题{n},甲,乙,丙,丁,{'BC'[n]}\n" for n in range(2)]
        asked = [
            f"{n},{subject}的问题{n},东,南,西,北,{'ABCD'[n % 4]}\n"
            for n in range(sizes.get(subject, 1))
        ]
        for part, rows in (("dev", solved), ("test", asked)):
            path = folder / part / f"{subject}.csv"
            path.write_text(HEAD + "".join(rows), encoding="utf-8")
    return folder


def make_task(data, **changes):
    return CMMLU(**{"data": data, "shots": 2, "options": GenerationOptions(), **changes})


def by_name(figures):
    return {figure.name: figure for figure in figures}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cmmlu(tmp_path_factory.mktemp("cmmlu"), {"virology": 3})


def test_the_prompt_is_the_official_one(data):
    found = {example.name: example for example in make_task(data).examples()}
    example = found["high_school_physics/0"]
    parts = example.conversation.turns[0].parts
    assert "".join(part.text for part in parts) == GOLDEN
    assert example.choices == ("A", "B", "C", "D")
    assert example.groups == ("STEM", "high_school_physics")
    assert len(parts) == example.first_shot + example.num_shots + 1


def test_averages_are_over_subjects(data, write_replies):
    task, right = make_task(data), {"virology/0", "ancient_chinese/0"}
    records = write_replies(task, lambda e: e.answer if e.name in right else "D")
    figures = by_name(task.figures(records))
    assert figures["cmmlu"].value == pytest.approx((1 / 3 + 1) / 67, abs=1e-5)
    assert figures["cmmlu"].num == 69
    assert figures["cmmlu/STEM"].value == pytest.approx((1 / 3) / 17, abs=1e-5)
    assert figures["cmmlu/Social Science"].value == pytest.approx(1 / 22, abs=1e-5)
    assert figures["cmmlu/China specific"].value == pytest.approx(1 / 15, abs=1e-5)
    assert figures["cmmlu/China specific"].level == figures["cmmlu/Other"].level == 1
    assert figures["cmmlu/virology"].value == pytest.approx(1 / 3, abs=1e-5)
    assert len(figures) == 1 + 4 + 67 + 1


def test_a_part_of_the_examples_has_figures_too(data, fakes):
    task = make_task(data)
    example = task.examples()[0]
    record = Record(example=example, reply=fakes.make_reply("A"), understood="A", score=1.0)
    assert [figure.name for figure in task.figures([record])] == [
        "cmmlu",
        "cmmlu/Other",
        "cmmlu/agronomy",
    ]


def test_written_replies_are_read_and_others_are_counted(data, write_replies):
    task = make_task(data, by="generation", frame="chat")
    said = {"virology": "答案是：B", "arts": "我不知道。"}
    records = write_replies(task, lambda example: said.get(example.groups[-1], "D"))
    figures = by_name(task.figures(records))
    assert figures["cmmlu/virology"].value == pytest.approx(1 / 3, abs=1e-5)
    assert (figures["cmmlu"].num_unread, figures["cmmlu/arts"].num_unread) == (1, 1)


def test_a_missing_folder_is_told_with_its_tree(tmp_path):
    with pytest.raises(DataError, match=r"nothing is there.*\n(?s:.*)dev/agronomy.csv"):
        make_task(tmp_path / "nowhere").examples()


def test_a_row_that_is_there_twice_is_refused(tmp_path):
    folder = write_cmmlu(tmp_path, {})
    row = "4,q,a,b,c,d,A\n"
    (folder / "test" / "arts.csv").write_text(HEAD + row + row)
    with pytest.raises(DataError, match="the example 'arts/4' is there twice"):
        make_task(folder).examples()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",q,a,b,c,d,A\n", "row 1: its 'first column' is empty"),
        ("0,q,a,b,c,d,E\n", r"row 1 \(0\): the answer is 'E'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
    folder = write_cmmlu(tmp_path, {})
    (folder / "test" / "arts.csv").write_text(HEAD + row)
    with pytest.raises(DataError, match=rf"test/arts.csv in .*, {message}"):
        make_task(folder).examples()


def test_guesses_are_right_as_often_as_chance(tmp_path, guess_letters, is_chance):
    task = make_task(write_cmmlu(tmp_path, dict.fromkeys(SUBJECTS, 20)), shots=0)
    examples = task.examples()
    assert is_chance(guess_letters(task, examples, seed=3), len(examples))


def test_the_published_files_are_read_whole(shared, guess_letters, is_chance):
    data = shared / "data" / "benchmarks" / "cmmlu"
    if not data.with_suffix(".zip").exists():
        pytest.skip("the published files of CMMLU are not here")
    task = make_task(data, shots=5)
    examples = task.examples()
    assert len(examples) == 11582
    assert {example.groups[-1] for example in examples} == set(SUBJECTS)
    assert all(example.num_shots == 5 for example in examples)
    assert is_chance(guess_letters(task, examples, seed=1), 11582)
