"""Invented questions in the layout of MMLU, and the published files where they are."""

from collections import Counter

import pytest

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.tasks.mmlu import MMLU
from mllm_npu.evaluate.tasks.mmlu_subjects import CATEGORIES, SUBCATEGORIES, groups_of
from mllm_npu.inference.options import GenerationOptions

GOLDEN = (
    "The following are multiple choice questions (with answers) about  high school physics.\n\n"
    "Solved 0 of high_school_physics?\nA. p\nB. q\nC. r\nD. s\nAnswer: B\n\n"
    "Solved 1 of high_school_physics?\nA. p\nB. q\nC. r\nD. s\nAnswer: C\n\n"
    "Asked 0 of high_school_physics?\nA. w\nB. x, too\nC. y\nD. z\nAnswer:"
)


def write_mmlu(folder, sizes, split="test"):
    """Two solved questions of each subject, and as many others as are told (one if nothing is)."""
    for part in ("dev", split):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for subject in SUBCATEGORIES:
        solved = [f"Solved {n} of {subject}?,p,q,r,s,{'BC'[n]}\n" for n in range(2)]
        asked = [
            f'Asked {n} of {subject}?,w,"x, too",y,z,{"ABCD"[n % 4]}\n'
            for n in range(sizes.get(subject, 1))
        ]
        (folder / "dev" / f"{subject}_dev.csv").write_text("".join(solved))
        (folder / split / f"{subject}_{split}.csv").write_text("".join(asked))
    return folder


def make_task(data, **changes):
    return MMLU(**{"data": data, "shots": 2, "options": GenerationOptions(), **changes})


def by_name(figures):
    return {figure.name: figure for figure in figures}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_mmlu(tmp_path_factory.mktemp("mmlu"), {"anatomy": 3})


def test_the_prompt_is_the_official_one(data):
    found = {example.name: example for example in make_task(data).examples()}
    parts = found["high_school_physics/0"].conversation.turns[0].parts
    assert "".join(part.text for part in parts) == GOLDEN
    assert found["high_school_physics/0"].choices == (" A", " B", " C", " D")
    assert (found["anatomy/1"].answer, found["anatomy/2"].answer) == ("B", "C")


def test_averages_are_over_questions(data, write_replies):
    task = make_task(data)
    records = write_replies(task, lambda e: e.answer if e.groups[-1] == "anatomy" else "D")
    figures = by_name(task.figures(records))
    assert figures["mmlu"].value == pytest.approx(3 / 59, abs=1e-5)
    assert figures["mmlu/other (business, health, misc.)"].value == pytest.approx(3 / 16, abs=1e-5)
    assert figures["mmlu/other (business, health, misc.)/health"].value == pytest.approx(3 / 10)
    assert figures["mmlu/anatomy"].value == 1
    assert figures["mmlu/STEM"].value == 0
    assert [figures[name].level for name in ("mmlu", "mmlu/STEM", "mmlu/STEM/math")] == [0, 1, 2]
    assert figures["mmlu/virology"].level == 3
    assert len(figures) == 1 + 4 + 17 + 57


def test_replies_without_a_letter_are_wrong_and_counted(data, write_replies):
    task = make_task(data, by="generation", frame="chat")
    said = {"virology": "I do not know.", "anatomy": "The answer is (B)."}
    records = write_replies(task, lambda example: said.get(example.groups[-1], "D"))
    figures = by_name(task.figures(records))
    assert (figures["mmlu"].num_unread, figures["mmlu/virology"].num_unread) == (1, 1)
    assert figures["mmlu/anatomy"].value == pytest.approx(1 / 3, abs=1e-5)
    assert figures["mmlu/virology"].value == 0


def test_the_other_split_has_files_of_its_own(tmp_path):
    task = make_task(write_mmlu(tmp_path, {}, split="val"), split="val")
    assert len(task.examples()) == 57
    assert task.title == "MMLU (val), 2 shots"
    with pytest.raises(DataError, match=r"there is no test/abstract_algebra_test.csv"):
        make_task(tmp_path).examples()


def test_a_missing_folder_is_told_with_its_tree(tmp_path):
    with pytest.raises(DataError, match=r"nothing is there.*\n(?s:.*)dev/abstract_algebra_dev.csv"):
        make_task(tmp_path / "nowhere").examples()


def test_a_missing_subject_is_not_left_out(tmp_path):
    folder = write_mmlu(tmp_path, {})
    (folder / "test" / "virology_test.csv").unlink()
    with pytest.raises(DataError, match=r"there is no test/virology_test.csv"):
        make_task(folder).examples()


def test_an_answer_that_is_no_letter_names_its_row(tmp_path):
    folder = write_mmlu(tmp_path, {})
    (folder / "test" / "virology_test.csv").write_text("q,a,b,c,d,A\nq,a,b,c,d,5\n")
    with pytest.raises(DataError, match=r"virology_test.csv in .*, row 2 \(1\): the answer is '5'"):
        make_task(folder).examples()


def test_more_shots_than_there_are_are_refused(data):
    with pytest.raises(ConfigError, match=r"shots=5 was asked for, dev/abstract_algebra_dev.csv"):
        make_task(data, shots=5).examples()


def test_guesses_are_right_as_often_as_chance(tmp_path, guess_letters, is_chance):
    task = make_task(write_mmlu(tmp_path, dict.fromkeys(SUBCATEGORIES, 20)), shots=0)
    examples = task.examples()
    assert is_chance(guess_letters(task, examples, seed=1), len(examples))


def test_every_subject_has_a_category():
    below = [subcategory for members in CATEGORIES.values() for subcategory in members]
    assert len(below) == len(set(below)) == 17
    assert set(SUBCATEGORIES.values()) == set(below)
    sizes = Counter(groups_of(subject)[0] for subject in SUBCATEGORIES)
    assert sorted(sizes.values()) == [12, 13, 14, 18]


@pytest.mark.parametrize(("split", "number"), [("test", 14042), ("val", 1531)])
def test_the_published_files_are_read_whole(shared, guess_letters, is_chance, split, number):
    data = shared / "data" / "benchmarks" / "mmlu"
    if not data.with_suffix(".zip").exists():
        pytest.skip("the published files of MMLU are not here")
    task = make_task(data, shots=5, split=split)
    examples = task.examples()
    assert len(examples) == number
    assert {example.groups[-1] for example in examples} == set(SUBCATEGORIES)
    assert all(example.num_shots == 5 for example in examples)
    assert is_chance(guess_letters(task, examples, seed=1), number)
