import json
import shutil

import pytest

from mllm_npu.zoo.card import CARD_FOLDER, find_card

SMALLEST = "llava_onevision_qwen2_0_5b"
CARD = """name: made_up
memory:
  - what: measured
    value: 1.5
    by: mllm-npu train experiment=x
  - what: planned
    value: null
    by: mllm-npu plan experiment=x
speed:
  - what: planned
    value: 3
    by: mllm-npu plan experiment=x
docs: []
"""


@pytest.fixture
def script(load_script):
    return load_script("plan_cards")


def test_a_value_stands_above_its_command_and_nothing_else_changes(script):
    by = "mllm-npu plan experiment=x"
    found = script.fill(CARD, "memory", by, 12.5)
    assert found == CARD.replace("value: null", "value: 12.5")
    assert script.fill(CARD, "speed", by, 2400.0) == CARD.replace("value: 3", "value: 2400")


def test_a_figure_that_is_not_there_is_said(script):
    with pytest.raises(ValueError, match="speed has 0 figures by 'mllm-npu train experiment=x'"):
        script.fill(CARD, "speed", "mllm-npu train experiment=x", 1.0)


def test_an_unknown_card_is_one_line(script, capsys):
    with pytest.raises(SystemExit) as ended:
        script.main(["nothing"])
    assert ended.value.code == 2
    assert "error: 'nothing' is no card of the zoo." in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_the_smallest_card_says_what_a_plan_says_now(script, tmp_path, capsys):
    shutil.copy(CARD_FOLDER / f"{SMALLEST}.yaml", tmp_path)
    assert script.main([SMALLEST, "--folder", str(tmp_path)]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    kept, now = find_card(SMALLEST), find_card(SMALLEST, tmp_path)
    for part in ("memory", "speed"):
        by = [entry.value for entry in getattr(kept, part) if entry.by.startswith(script.COMMAND)]
        assert by == [pytest.approx(line[part], rel=0.05)]
        assert line[part] in [entry.value for entry in getattr(now, part)]
