import re

import pytest


@pytest.mark.slow
def test_a_run_is_planned_without_a_device(run_example):
    said = run_example("plan_64", "--run", "experiment=digits/mllm", "cluster=910b3_64")
    assert "digits/mllm on 64 x Ascend910B3" in said
    assert "fits: yes" in said
    assert re.search(r"a step takes 0\.\d+ s, limited by ", said)
    assert "tokens in" in said
