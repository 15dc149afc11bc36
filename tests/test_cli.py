import json

import pytest

from mllm_npu import __version__
from mllm_npu.cli import main


@pytest.mark.parametrize(
    "command",
    [[], ["train"], ["evaluate"], ["generate"], ["chat"], ["data"], ["data", "digits"],
     ["data", "scenes"], ["data", "index"], ["config"], ["doctor"]],
)  # fmt: skip
def test_every_command_explains_itself(command, capsys):
    assert main([*command, "--help"]) == 0
    assert "Usage: mllm-npu" in capsys.readouterr().out


def test_examples_are_shown(capsys):
    main(["train", "--help"])
    assert "experiment=digits" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_unknown_command_is_refused(capsys):
    assert main(["nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_config_prints_what_overrides_give(capsys):
    assert main(["config", "models/language_model=qwen3_tiny", "--json"]) == 0
    composed = json.loads(capsys.readouterr().out)
    assert composed["models"]["language_model"]["config"]["model_type"] == "qwen3"


def test_a_refusal_is_one_line(capsys):
    assert main(["config", "+train.lrr=1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ConfigError: train.lrr is not a setting of")
    assert len(error.splitlines()) == 1


def test_index_of_nothing_is_refused(capsys, tmp_path):
    assert main(["data", "index", str(tmp_path / "*.tar")]) == 2
    assert "no shard" in capsys.readouterr().err.lower()


def test_doctor_for_machines(capsys):
    assert main(["doctor", "--json"]) in (0, 1)
    checks = json.loads(capsys.readouterr().out)
    assert {"name", "state", "advice"} <= set(checks[0])
