from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from mllm_npu.arguments import (
    Part,
    argument_names,
    argument_types,
    check_arguments,
    check_types,
    describe,
    fits,
)
from mllm_npu.errors import ConfigError
from mllm_npu.train.objectives.mllm import MultimodalObjective

PART = {"_target_": "a.b.C"}


class Tower:
    def __init__(self, *, width: int, names: "Sequence[str]", other: "Unknown | None" = None):  # noqa: F821
        """Only here to be read."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, int),
        (1, float),
        (1.5, float),
        (True, bool),
        ("a", str),
        ("a/b", Path),
        (None, int | None),
        (3, int | None),
        ("mse", Literal["mse", "cosine"]),
        ([1, 2.5], Sequence[float]),
        ([0.9, 0.98], tuple[float, float]),
        ([1, 2, 3], tuple[int, ...]),
        ([], list[str]),
        ([PART, PART], Sequence[Tower]),
        ({"a": 1.0}, Mapping[str, float]),
        ({"model_type": "llama"}, Mapping[str, Any]),
        (PART, Tower),
        (PART, Part),
        (None, Tower | None),
        ("anything", Any),
        (5, object),
        ("auto", int | Literal["auto"]),
        ([1], Iterable[int] | None | Sequence[int]),
    ],
)
def test_what_fits(value, expected):
    assert fits(value, expected)


@pytest.mark.parametrize(
    ("value", "expected", "words"),
    [
        ("abc", int, "a whole number"),
        (1.5, int, "a whole number"),
        (True, int, "a whole number"),
        (None, float, "a number"),
        ("1e-3", float, "a number"),
        (False, float, "a number"),
        ("maybe", bool, "true or false"),
        (1, bool, "true or false"),
        (5, str, "a text"),
        ("abc", int | None, "a whole number or null"),
        ("l3", Literal["mse", "cosine"], "one of mse, cosine"),
        ("abc", Sequence[str], "a list, each a text"),
        ([1, "x"], Sequence[float], "a list, each a number"),
        ([0.9], tuple[float, float], "a list, each a number"),
        ([1], Mapping[str, Any], "keys with values"),
        ({"a": "x"}, Mapping[str, float], "keys with values"),
        (None, Tower, "a part with a _target_ (Tower)"),
        (5, Tower, "a part with a _target_ (Tower)"),
        ({"width": 3}, Part, "a part with a _target_"),
        (PART, int, "a whole number"),
    ],
)
def test_what_does_not_fit_and_what_would(value, expected, words):
    assert not fits(value, expected)
    assert describe(expected) == words


def test_annotations_are_read_where_some_names_are_known_to_type_checkers_only():
    found = argument_types(Tower)
    assert found["width"] is int
    assert fits(["a"], found["names"])
    assert not fits("a", found["names"])
    assert fits(7, found["other"])
    real = argument_types(MultimodalObjective)
    assert not fits("x", real["trainable"])
    assert fits(None, real["feature_cache"])


def test_functions_and_classes_without_a_constructor():
    def load(*, path: str) -> int:
        return len(path)

    assert argument_types(load)["path"] is str
    assert argument_types(Part) == {}


ADAM = "mllm_npu.train.optimizer.AdamW"


def test_names_of_a_class_and_of_a_function():
    assert "lr" in argument_names(ADAM, "train.optimizer")
    assert argument_names("mllm_npu.processing.tokenizer.load_tokenizer", "tokenizer") == ["path"]


@pytest.mark.parametrize(
    "target", ["mllm_npu.nowhere.Thing", "mllm_npu.train.optimizer.Nothing", "Nothing", ""]
)
def test_a_target_that_is_not_there_is_named_with_its_path(target):
    with pytest.raises(ConfigError, match=r"train\.optimizer\._target_ is .*spelling"):
        argument_names(target, "train.optimizer")


def test_a_target_that_cannot_be_called():
    with pytest.raises(ConfigError, match="no class"):
        argument_names("mllm_npu.cli.EXIT_REFUSED", "models")


def test_values_are_checked_at_any_depth():
    check_arguments({"parts": [{"_target_": ADAM, "lr": 1e-3}]}, "")
    with pytest.raises(ConfigError, match=r"parts\[0\]\.lr='abc' was asked for. Give a number"):
        check_arguments({"parts": [{"_target_": ADAM, "lr": "abc"}]}, "")
    with pytest.raises(ConfigError, match=r"lr=null was asked for"):
        check_arguments({"_target_": ADAM, "lr": None}, "")


def test_what_has_no_annotation_here_is_left_alone():
    check_types({"other": 3, "unheard": 4}, Tower, "")
