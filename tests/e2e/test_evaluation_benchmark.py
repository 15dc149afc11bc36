"""The benchmark of evaluation in miniature: together is faster than alone, and says the same."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_weighing_together_is_measured_against_one_by_one(root, tmp_path):
    small = ["--questions", "100", "--rounds", "1", "--threads", "1", "--data", str(tmp_path)]
    small += ["--new-tokens", "2"]
    done = subprocess.run(
        [sys.executable, "benchmarks/evaluation.py", "--json", *small],
        check=True,
        capture_output=True,
        text=True,
        cwd=root,
        timeout=280,
    )
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["same_answers"] is True
    assert line["max_abs_diff"] < 1e-4
    assert line["source"] == "made up"
    assert line["questions"] == 100
    forwards = line["forwards"]
    assert forwards["generated_token"] == 100
    assert forwards["generated"] == 200
    assert forwards["weighed_alone"] == 200
    assert forwards["weighed"] * 20 <= forwards["generated_token"]
    assert all(gain > 1.1 for gain in line["cpu_gain"].values())
