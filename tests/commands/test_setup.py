"""What is set up, for people and for machines."""

import json

from mllm_npu.cli import main


def test_config_prints_what_overrides_give(capsys):
    assert main(["config", "models/language_model=qwen3_tiny", "--json"]) == 0
    composed = json.loads(capsys.readouterr().out)
    assert composed["models"]["language_model"]["config"]["model_type"] == "qwen3"


def test_doctor_for_machines(capsys):
    assert main(["doctor", "--json"]) in (0, 1)
    checks = json.loads(capsys.readouterr().out)
    assert {"name", "state", "advice"} <= set(checks[0])
