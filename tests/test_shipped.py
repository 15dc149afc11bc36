"""A name finds the model that came with the package, and never hides a folder of that name."""

from pathlib import Path

import pytest

from mllm_npu.shipped import SHIPPED_FOLDER, resolve_run, results_folder, shipped_names


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Names are looked for from a folder that holds nothing."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_digits_model_is_shipped():
    assert "digits" in shipped_names()
    assert resolve_run(Path("digits")) == SHIPPED_FOLDER / "digits"


def test_a_folder_of_that_name_comes_first(elsewhere):
    (elsewhere / "digits").mkdir()
    assert resolve_run(Path("digits")) == Path("digits")
    assert results_folder(Path("digits")) == Path("digits")


@pytest.mark.parametrize("run", ["runs/digits", "../digits", "nothing", ".", "models/digits"])
def test_what_is_no_name_stays_as_it_is(run):
    assert resolve_run(Path(run)) == Path(run)
    assert results_folder(Path(run)) == Path(run)


def test_reports_on_a_shipped_model_leave_the_package_alone():
    assert results_folder(Path("digits")) == Path("runs/shipped-digits")


def test_only_whole_folders_count(elsewhere):
    (elsewhere / "models" / "half").mkdir(parents=True)
    assert shipped_names(elsewhere / "models") == []
    (elsewhere / "models" / "half" / "model.yaml").write_text("name: half\n")
    assert shipped_names(elsewhere / "models") == ["half"]
