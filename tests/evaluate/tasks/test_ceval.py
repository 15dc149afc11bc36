"""Invented questions in the layout of C-Eval, and the published files where they are."""

import json

import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.tasks.ceval import CEval
from mllm_npu.evaluate.tasks.ceval_subjects import SUBJECTS
from mllm_npu.inference.options import GenerationOptions

GOLDEN = (
    "以下是中国关于高中物理考试的单项选择题，请选出其中的正确答案。\n\n"
    "high_school_physics的例题0\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案：B\n\n"
    "high_school_physics的例题1\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案：C\n\n"
    "high_school_physics的问题0\nA. 东\nB. 南\nC. 西\nD. 北\n答案："
)
HEAD = "id,question,A,B,C,D"


def write_ceval(folder, sizes):
    """Two solved questions of each subject, and as many others as are told (one if nothing is)."""
    for part in ("dev", "val", "test"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for subject in SUBJECTS:
        solved = [f'{n},{subject}的例题{n},甲,乙,丙,丁,{"BC"[n]},"一,\n二"\n' for n in range(2)]
        texts = [f"{n},{subject}的问题{n},东,南,西,北" for n in range(sizes.get(subject, 1))]
        answered = [f"{text},{'ABCD'[n % 4]}\n" for n, text in enumerate(texts)]
        files = {
            "dev": f"{HEAD},answer,explanation\n{''.join(solved)}",
            "val": f"{HEAD},answer\n{''.join(answered)}",
            "test": "\n".join([HEAD, *texts, ""]),
        }
        for part, text in files.items():
            (folder / part / f"{subject}_{part}.csv").write_text(text, encoding="utf-8")
    return folder


def make_task(data, **changes):
    return CEval(**{"data": data, "shots": 2, "options": GenerationOptions(), **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_ceval(tmp_path_factory.mktemp("ceval"), {"law": 3})


def by_name(figures):
    return {figure.name: figure for figure in figures}


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_prompt_is_the_official_one(data, split):
    found = {example.name: example for example in make_task(data, split=split).examples()}
    example = found["high_school_physics/0"]
    assert "".join(part.text for part in example.conversation.turns[0].parts) == GOLDEN
    assert example.choices == ("A", "B", "C", "D")
    assert example.answer == ("A" if split == "val" else "")


def test_averages_are_over_subjects(data, write_replies):
    task, right = make_task(data), {"law/0", "college_physics/0"}
    records = write_replies(task, lambda e: e.answer if e.name in right else "D")
    figures = by_name(task.figures(records))
    assert figures["ceval"].value == pytest.approx((1 / 3 + 1) / 52, abs=1e-5)
    assert figures["ceval/Humanities"].value == pytest.approx((1 / 3) / 11, abs=1e-5)
    assert figures["ceval/STEM"].value == pytest.approx(1 / 20, abs=1e-5)
    assert figures["ceval/Hard"].value == pytest.approx(1 / 8, abs=1e-5)
    assert figures["ceval/Hard"].level == 1
    assert len(figures) == 1 + 4 + 52 + 1
    assert task.submissions(records) == {}


def test_the_hidden_split_makes_the_file_that_is_submitted(data, write_replies):
    task = make_task(data, split="test", by="generation", frame="chat")
    said = {"law/1": "选C", "logic/0": "不知道"}
    records = write_replies(task, lambda example: said.get(example.name, "B"))
    (file,) = task.submissions(records).items()
    assert file[0] == "ceval_test.json"
    letters = json.loads(file[1])
    assert set(letters) == set(SUBJECTS)
    assert letters["law"] == {"0": "B", "1": "C", "2": "B"}
    assert letters["logic"] == {"0": ""}


def test_the_hidden_split_claims_no_accuracy(data, write_replies):
    task = make_task(data, split="test")
    records = write_replies(task, lambda example: "B" if example.name != "logic/0" else "?")
    (figure,) = task.figures(records)
    assert figure.name == "ceval/answered"
    assert figure.title.startswith("C-Eval (test), 2 shots: share of replies")
    assert figure.value == pytest.approx(53 / 54, abs=1e-5)
    assert figure.num_unread == 1


def test_a_missing_folder_is_told_with_its_tree(tmp_path):
    with pytest.raises(DataError, match=r"nothing is there.*\n(?s:.*)dev/accountant_dev.csv"):
        make_task(tmp_path / "nowhere").examples()


def test_an_id_that_is_there_twice_is_refused(tmp_path):
    folder = write_ceval(tmp_path, {})
    row = "4,q,a,b,c,d,A\n"
    (folder / "val" / "law_val.csv").write_text(f"{HEAD},answer\n{row}{row}")
    with pytest.raises(DataError, match="the example 'law/4' is there twice"):
        make_task(folder).examples()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",q,a,b,c,d,A\n", "row 1: its 'id' is empty"),
        ("0,q,a,b,c,d,甲\n", r"row 1 \(0\): the answer is '甲'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
    folder = write_ceval(tmp_path, {})
    (folder / "val" / "law_val.csv").write_text(f"{HEAD},answer\n{row}", encoding="utf-8")
    with pytest.raises(DataError, match=rf"val/law_val.csv in .*, {message}"):
        make_task(folder).examples()


def test_guesses_are_right_as_often_as_chance(tmp_path, guess_letters, is_chance):
    task = make_task(write_ceval(tmp_path, dict.fromkeys(SUBJECTS, 20)), shots=0)
    examples = task.examples()
    assert is_chance(guess_letters(task, examples, seed=5), len(examples))


@pytest.mark.parametrize(("split", "number"), [("val", 1346), ("test", 12342)])
def test_the_published_files_are_read_whole(shared, guess_letters, is_chance, split, number):
    data = shared / "data" / "benchmarks" / "ceval"
    if not data.with_suffix(".zip").exists():
        pytest.skip("the published files of C-Eval are not here")
    task = make_task(data, shots=5, split=split)
    examples = task.examples()
    assert len(examples) == number
    assert {example.groups[-1] for example in examples} == set(SUBJECTS)
    assert all(example.num_shots == 5 for example in examples)
    share = guess_letters(task, examples, seed=1)
    assert is_chance(share, number) if split == "val" else share == 0
