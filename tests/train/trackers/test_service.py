import sys

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.train.trackers.service import (
    import_package,
    keep_run_id,
    read_settings,
    refuse_start,
)


def test_a_package_that_is_missing_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"tracker wandb .*pip install 'mllm-npu\[wandb\]'"):
        import_package("wandb")


def test_a_package_that_is_there_is_imported():
    assert import_package("json").loads("1") == 1


def test_a_run_keeps_its_id_while_it_goes_on(tmp_path):
    file = tmp_path / "run" / "wandb_run.txt"
    first = keep_run_id(file, 0)
    assert len(first) == 21
    assert first.isalnum()
    assert first == first.lower()
    assert keep_run_id(file, 20) == keep_run_id(file, 40) == first


def test_a_run_that_begins_anew_gets_a_new_id(tmp_path):
    file = tmp_path / "wandb_run.txt"
    first = keep_run_id(file, 0)
    second = keep_run_id(file, 0)
    assert second != first
    assert keep_run_id(file, 1) == second


def test_a_resumed_run_without_an_id_gets_one(tmp_path):
    """As when the tracker was added only now."""
    file = tmp_path / "wandb_run.txt"
    assert keep_run_id(file, 20) == keep_run_id(file, 30)


def test_settings_are_nested_values():
    text = "train:\n  lr: 0.001\n  betas: [0.9, 0.98]\nname: digits\n"
    assert read_settings(text) == {"train": {"lr": 0.001, "betas": [0.9, 0.98]}, "name": "digits"}
    assert read_settings("") == {}


def test_a_refusal_says_how_to_go_on():
    error = refuse_start("wandb", "online", ValueError("no\n  key"))
    assert "mode=online" in str(error)
    assert "no key" in str(error)
    assert "train.recorder.trackers.wandb.mode=offline" in str(error)
