"""Figures that follow each other become a tree by their levels."""

from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.figure_tree import figure_tree


def details(*rows):
    return [
        Figure(name=title, title=title, value=value, level=level).to_json()
        for level, title, value in rows
    ]


def outline(nodes):
    return [(node.label, outline(node.children)) for node in nodes]


def test_each_figure_stands_below_the_last_one_of_a_lower_level():
    roots = figure_tree(
        details(
            *((0, "exam", 0.5), (1, "stem", 0.4), (2, "stem/high_school_maths", 0.3)),
            *((3, "deep", 0.1), (2, "physics", 0.2), (1, "arts", 0.6), (0, "other", 7.0)),
        )
    )
    assert outline(roots) == [
        (
            "exam",
            [
                ("stem", [("high school maths", [("deep", [])]), ("physics", [])]),
                ("arts", []),
            ],
        ),
        ("other", []),
    ]
    assert [node.label for node in roots[0].walk()] == [
        *("exam", "stem", "high school maths", "deep", "physics", "arts")
    ]


def test_a_level_may_be_left_out():
    assert outline(figure_tree(details((0, "a", 1.0), (2, "b", 1.0), (1, "c", 1.0)))) == [
        ("a", [("b", []), ("c", [])])
    ]
    assert outline(figure_tree(details((1, "alone", 1.0)))) == [("alone", [])]
    assert figure_tree([]) == []


def test_bars_show_shares_alone():
    share, points = figure_tree(
        details((0, "a", 1.0), (1, "b", 0.0), (0, "c", 0.5), (1, "d", 120.0))
    )
    assert share.is_share
    assert not points.is_share
    assert not figure_tree(details((0, "a", -0.1)))[0].is_share
