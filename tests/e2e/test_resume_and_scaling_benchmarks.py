"""The benchmarks of resuming and of ranks in miniature: what counting shows holds here as well."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def figures(root, *command: str) -> dict:
    done = subprocess.run(
        [sys.executable, *command],
        check=False,
        capture_output=True,
        text=True,
        cwd=root,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_that_is_killed_on_changing_worlds_loses_and_repeats_nothing(root):
    line = figures(root, "benchmarks/resume.py", "--json", "--kills", "3", "--steps", "8")
    assert line["samples"] > 8
    assert line["samples_lost"] == line["samples_repeated"] == 0
    assert line["loss_max_abs_diff"] == 0.0
    assert line["loss_max_rel_diff"] <= 1e-5
    assert line["attempts"] == 3 + 2


def test_ranks_send_what_the_formula_says_and_share_what_they_hold(root):
    line = figures(root, "benchmarks/scaling.py", "--json", "--no-startup", "--steps", "3")
    assert 0.95 < line["bytes_per_step"] <= 1.05
    # Of the four packs of an update each rank has one instead of two, and asks for 3/4, not 1/2.
    sent = line["sent_mib_per_step"]
    assert sent["4"] / sent["2"] == pytest.approx(0.75, rel=1e-3)
    assert 0.25 <= line["peak_memory_ratio_4"] <= 0.27
    alone = line["loss_by_ranks"]["1"]
    assert line["loss_by_ranks"] == pytest.approx(dict.fromkeys("124", alone), rel=1e-4)
