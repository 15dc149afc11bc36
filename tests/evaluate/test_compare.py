"""Two evaluations side by side: shared examples, values, groups, and what is left out."""

import pytest

from mllm_npu.errors import DataError
from mllm_npu.evaluate.compare import compare_evaluations, describe_counts


@pytest.fixture
def compared(write_evaluation, tmp_path):
    """Ten shared examples of a quiz, two more in A and one in B; a task each has alone."""

    def compare(changes_b=None, **changes):
        right_a, right_b = "1111100011", "1110111100"
        rows_a = [("quiz", f"e{n}", float(score)) for n, score in enumerate(right_a)]
        rows_b = [("quiz", f"e{n}", float(score)) for n, score in enumerate(right_b)]
        write_evaluation(
            tmp_path / "a",
            *(*rows_a, ("quiz", "x", 1.0), ("quiz", "y", 1.0), ("early", "e0", 1.0)),
            figures={"quiz": 0.75},
            model="small",
            **changes,
        )
        write_evaluation(
            tmp_path / "b",
            *(*rows_b, ("quiz", "z", 0.0), ("late", "e0", 1.0)),
            model="big",
            **(changes_b or changes),
        )
        return compare_evaluations(tmp_path / "a", tmp_path / "b")

    return compare


def test_shared_examples_alone_are_compared(compared):
    found = compared()
    [task] = found.tasks
    assert (task.task, len(task.pairs), task.num_only_a, task.num_only_b) == ("quiz", 10, 2, 1)
    assert (task.value_a, task.value_b) == (0.7, 0.7)
    assert (task.difference.num_higher, task.difference.num_lower) == (3, 3)
    assert (task.difference.mean, task.difference.p_value) == (0.0, 1.0)
    assert not task.differs
    assert (list(found.only_a), list(found.only_b)) == (["early"], ["late"])
    assert found.names() == ("small", "big")


def test_flips_are_named_in_both_directions(compared):
    [task] = compared().tasks
    assert [a.example for a, _ in task.flips(higher=True)] == ["e5", "e6", "e7"]
    assert [a.example for a, _ in task.flips(higher=False)] == ["e3", "e8", "e9"]


def test_the_largest_differences_come_first(write_evaluation, tmp_path):
    write_evaluation(tmp_path / "a", *(("quiz", f"e{n}", 0.5) for n in range(4)))
    scores = (0.6, 1.0, 0.1, 0.75)
    write_evaluation(tmp_path / "b", *(("quiz", f"e{n}", s) for n, s in enumerate(scores)))
    [task] = compare_evaluations(tmp_path / "a", tmp_path / "b").tasks
    assert [b.score for _, b in task.flips(higher=True)] == [1.0, 0.75, 0.6]
    assert task.difference.test == "exact permutation"


def test_numbers_of_the_reports_are_beside_the_means(compared):
    plain = compared().to_json()
    assert plain["a"]["name"] == "small"
    assert plain["tasks_only_a"] == ["early"]
    [task] = plain["tasks"]
    assert (task["figure_a"], task["figure_b"]) == (0.75, None)
    assert (task["num"], task["num_only_a"], task["num_only_b"]) == (10, 2, 1)
    assert (task["test"], task["p_value"], task["num_higher"]) == ("exact McNemar", 1.0, 3)


def test_what_is_not_alike_is_counted_and_said(compared):
    [task] = compared(
        {"question": ["Which one?"], "answer": "other", "refused": "too long"}, question=["Which?"]
    ).tasks
    assert describe_counts(task.count()) == [
        "2 examples are in A only and left out",
        "1 examples are in B only and left out",
        "10 are asked in other words or with other solved examples",
        "10 have another right answer: the data differ",
        "10 were refused by B and count as wrong",
    ]
    [task] = compared({"question": ["s", "Q"], "shots": [0]}, question=["Q"]).tasks
    assert task.count()["num_asked_otherwise"] == 10
    assert describe_counts(dict.fromkeys(task.count(), 0)) == []


def test_groups_stand_below_each_other(write_evaluation, tmp_path):
    groups = {"e0": ["stem", "stem/high_maths"], "e1": ["stem", "physics"], "e2": ["arts", "law"]}
    for name, scores in (("a", "110"), ("b", "101")):
        rows = [("quiz", f"e{n}", float(score)) for n, score in enumerate(scores)]
        write_evaluation(
            tmp_path / name, *rows, each=lambda _, example: {"groups": groups[example]}
        )
    [task] = compare_evaluations(tmp_path / "a", tmp_path / "b").tasks
    assert [(g.name, g.level, g.num, g.value_a, g.value_b) for g in task.groups] == [
        ("arts", 1, 1, 0.0, 1.0),
        ("law", 2, 1, 0.0, 1.0),
        ("stem", 1, 2, 1.0, 0.5),
        ("physics", 2, 1, 1.0, 0.0),
        ("high maths", 2, 1, 1.0, 1.0),
    ]


def test_models_of_one_name_are_told_apart_by_their_folders(write_evaluation, tmp_path):
    for name in "ab":
        write_evaluation(tmp_path / name / "evaluation", ("quiz", "e0", 1.0), model="same")
    found = compare_evaluations(tmp_path / "a", tmp_path / "b")
    assert found.names() == (str(tmp_path / "a/evaluation"), str(tmp_path / "b/evaluation"))


def test_evaluations_with_nothing_in_common_are_refused(write_evaluation, tmp_path):
    write_evaluation(tmp_path / "a", ("quiz", "e0", 1.0))
    write_evaluation(tmp_path / "b", ("quiz", "e1", 1.0), ("other", "e0", 1.0))
    with pytest.raises(DataError, match=r"\['quiz'\].*\['quiz', 'other'\].*no example in common"):
        compare_evaluations(tmp_path / "a", tmp_path / "b")
