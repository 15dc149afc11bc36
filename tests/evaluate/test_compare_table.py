"""A comparison in the terminal."""

import pytest
from rich.console import Console

from mllm_npu.evaluate.compare import compare_evaluations
from mllm_npu.evaluate.compare_table import (
    comparison_notes,
    comparison_table,
    format_p,
    format_signed,
)


@pytest.fixture
def comparison(write_evaluation, tmp_path):
    quiz = [("quiz", f"e{n}", 0.0) for n in range(8)]
    grades = [("grades", f"e{n}", 0.5) for n in range(2)]
    write_evaluation(tmp_path / "a", *quiz, *grades, ("early", "e0", 1.0), model="small")
    better = [("quiz", f"e{n}", 1.0) for n in range(8)]
    write_evaluation(tmp_path / "b", *better, ("grades", "e0", 0.25), model="big")
    return compare_evaluations(tmp_path / "a", tmp_path / "b")


def show(comparison, width):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(comparison_table(comparison))
    return capture.get().splitlines()


def test_a_row_says_both_values_and_how_sure_their_difference_is(comparison):
    head, quiz, grades = show(comparison, 120)
    assert head.split() == ["task", "n", "A", "B", "B", "−", "A", "95", "%", "p", "+,", "−"]
    assert quiz.split() == ["quiz", "8", "0", "1", "+1", "+1,", "+1", "0.0078", "8,", "0"]
    assert grades.split() == [
        *("grades", "1", "0.5", "0.25", "−0.25", "−0.25,", "−0.25", "1", "0,", "1")
    ]


def test_names_and_numbers_stay_whole_in_a_narrow_terminal(comparison):
    shown = show(comparison, 60)
    assert any(line.startswith("grades") for line in shown)
    assert "…" not in "".join(shown)


def test_lines_beside_it_say_who_how_and_what_was_left_out(comparison):
    assert comparison_notes(comparison) == [
        "A: small",
        "B: big",
        "p by exact McNemar: quiz",
        "p by exact permutation: grades",
        "grades: 1 examples are in A only and left out",
        "tasks in A only, left out: early",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "+0.0123"), (-0.5, "−0.5"), (0.0, "0"), (-0.0, "0"), (3, "+3")]
)
def test_a_difference_has_its_sign(value, text):
    assert format_signed(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (0.5, "0.5"), (0.04321, "0.0432"), (0.0001, "0.0001"), (1e-7, "< 0.0001")],
)
def test_a_small_p_value_is_not_nought(value, text):
    assert format_p(value) == text
