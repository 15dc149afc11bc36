import re

import pytest


@pytest.fixture
def script(load_script):
    return load_script("freeze_constraints")


def test_only_names_and_versions_remain(script):
    frozen = [
        "torch==2.13.0+cpu",
        "# Editable install with no version control (mllm-npu==0.1.0)",
        "-e git+ssh://somewhere/mllm-npu.git#egg=mllm_npu",
        "wheel @ file:///somewhere/wheel.whl",
        "absl-py==2.5.1",
        "Jinja2==3.1.6",
    ]
    assert script.constraints(frozen) == ["absl-py==2.5.1", "Jinja2==3.1.6", "torch==2.13.0"]


def test_the_file_in_the_project_is_of_that_form(script):
    lines = script.CONSTRAINTS.read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
    assert "torch==2.13.0" in pins
    assert not any(line.startswith(("mllm", "torchvision")) for line in pins)
    assert len(pins) > 50
