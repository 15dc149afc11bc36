"""What --model_args says, and what lm-eval's own options add to it."""

from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'lm-eval>=0.4.13'")

from lm_eval.config.evaluate_config import EvaluatorConfig

from mllm_npu.errors import ConfigError
from mllm_npu.evaluate.lm_eval_arguments import ModelArguments

USUAL = {
    "device": EvaluatorConfig().device,
    "batch_size": EvaluatorConfig().batch_size,
    "max_batch_size": None,
}


def read(options=USUAL, **model_args):
    return ModelArguments.read({"run": "runs/digits", **model_args}, {**USUAL, **options})


def test_a_run_is_enough():
    assert read() == ModelArguments(run=Path("runs/digits"))
    assert read({"batch_size": "1"}).batch_size is None
    assert ModelArguments.read({"pretrained": "a/b"}, {}) == ModelArguments(run=Path("a/b"))


def test_options_of_lm_eval_count_where_they_were_given():
    asked = read({"device": "cpu", "batch_size": "8"})
    assert (asked.device, asked.batch_size) == ("cpu", 8)
    assert read({"batch_size": "auto:4", "max_batch_size": 32}).batch_size == 32
    assert read({"batch_size": "auto"}).batch_size is None


def test_model_args_win():
    asked = read({"device": "cpu", "batch_size": 8}, device="npu", batch_size=1, max_length="64")
    assert (asked.device, asked.batch_size, asked.max_length) == ("npu", 1, 64)
    assert read(seed=3).seed == 3


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ({}, "--model_args names no run; known are run, device"),
        ({"run": "a", "dtype": "b"}, "names dtype; known are run, .* --model_args run=runs/digits"),
        ({"run": "a", "batch_size": 0}, "batch_size=0 was asked for; give a number from 1"),
        ({"run": "a", "batch_size": "many"}, "batch_size='many' was asked for; give a whole"),
        ({"run": "a", "max_length": 1}, "max_length=1 was asked for"),
        ({"run": "a", "seed": -1}, "seed=-1 was asked for"),
        ({"run": "a", "pretrained": "b"}, "names run and pretrained"),
    ],
)
def test_what_cannot_be_is_refused(model_args, message):
    with pytest.raises(ConfigError, match=message):
        ModelArguments.read(model_args, USUAL)
