"""Averages over questions and over subjects, at every level."""

import pytest

from mllm_npu.evaluate.grouped import by_group, grouped_figures


@pytest.fixture
def records(fakes):
    """Physics 1 of 1, maths 1 of 3 (one unread), law 0 of 2."""
    rows = [
        *(("stem", "physics", "a", "a"), ("stem", "maths", "a", "a"), ("stem", "maths", "a", "x")),
        *(("stem", "maths", "a", "x"), ("arts", "law", "a", "x"), ("arts", "law", "a", "x")),
    ]
    made = [
        fakes.make_record(right, said, number, groups=tuple(groups))
        for number, (*groups, right, said) in enumerate(rows)
    ]
    unread = made[3]
    made[3] = type(unread)(example=unread.example, reply=unread.reply, understood=None, score=0.0)
    return made


def figures(records, **options):
    found = grouped_figures(records, name="exam", title="Exam", citation="c", **options)
    assert len({figure.name for figure in found}) == len(found)
    return {figure.name: figure for figure in found}


def test_levels_stand_below_each_other_in_alphabetical_order(records):
    found = figures(records)
    assert [(name, figure.level) for name, figure in found.items()] == [
        *(("exam", 0), ("exam/arts", 1), ("exam/law", 2)),
        *(("exam/stem", 1), ("exam/maths", 2), ("exam/physics", 2)),
    ]
    assert [figure.title for figure in found.values()][:3] == ["Exam", "arts", "law"]
    assert [figure.citation for figure in found.values()] == ["c", "", "", "", "", ""]


def test_micro_counts_every_question_alike(records):
    found = figures(records)
    assert found["exam"].value == pytest.approx(2 / 6, abs=1e-5)
    assert found["exam/stem"].value == 0.5
    assert (found["exam/maths"].value, found["exam/maths"].num) == (
        pytest.approx(1 / 3, abs=1e-5),
        3,
    )


def test_macro_counts_every_subject_alike(records):
    found = figures(records, average="macro", inner="macro")
    assert found["exam"].value == pytest.approx((1 + 1 / 3 + 0) / 3, abs=1e-5)
    assert found["exam/stem"].value == pytest.approx((1 + 1 / 3) / 2, abs=1e-5)
    assert found["exam/arts"].value == 0.0
    assert (found["exam"].num, found["exam/stem"].num) == (6, 4)
    assert figures(records, average="macro")["exam/stem"].value == 0.5


def test_replies_that_cannot_be_read_are_counted_where_they_are(records):
    found = figures(records)
    assert {name: figure.num_unread for name, figure in found.items() if figure.num_unread} == {
        "exam": 1,
        "exam/stem": 1,
        "exam/maths": 1,
    }


def test_without_groups_there_is_the_one_number(fakes):
    assert list(figures([fakes.make_record("a", "a")])) == ["exam"]


def test_an_example_with_fewer_groups_counts_where_it_has_some(fakes):
    rows = [("a", ("x", "deep")), ("b", ("x",)), ("c", ())]
    made = [
        fakes.make_record(right, "a", number, groups=groups)
        for number, (right, groups) in enumerate(rows)
    ]
    found = figures(made)
    assert {name: figure.num for name, figure in found.items()} == {
        "exam": 3,
        "exam/x": 2,
        "exam/deep": 1,
    }


def test_groups_come_in_the_order_in_which_they_appear(records):
    assert list(by_group(records, 1)) == ["physics", "maths", "law"]
    assert {name: len(own) for name, own in by_group(records, -1).items()}["maths"] == 3
