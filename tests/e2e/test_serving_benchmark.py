"""The benchmark of serving in miniature: it runs, and all ways of answering say the same."""

import json
import subprocess
import sys

import pytest

SMALL = ("--size", "256x4", "--requests", "16", "--tokens", "30", "--rounds", "1")
SMALL += ("--threads", "1", "--image-steps", "2")


@pytest.mark.slow
def test_many_requests_at_once_are_measured_against_one_at_a_time(root):
    done = subprocess.run(
        [sys.executable, "benchmarks/serving.py", "--json", *SMALL],
        check=True,
        capture_output=True,
        text=True,
        cwd=root,
        timeout=280,
    )
    line = json.loads(done.stdout.splitlines()[-1])
    # What follows from counting holds everywhere; times only roughly.
    assert line["identical_outputs"] is True
    assert line["image_features_max_abs_diff"] < 1e-4
    assert line["mean_batch_at_8"] > 2
    assert line["throughput_gain_8"] > 1
    assert line["gain_over_hf"] > 0.8
    assert line["image_tokens_gain_8"] > 5
    assert line["image_total_gain_8"] > 1
    assert 0 < line["ttft_ms_lone"] < line["ttft_p95_ms_at_8"]
