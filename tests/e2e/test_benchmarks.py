"""Benchmarks run, print one JSON line, and hold in miniature what they claim."""

import json
import subprocess
import sys


def test_image_tokens_agree_and_are_faster_in_one_forward(root):
    done = subprocess.run(
        [sys.executable, "benchmarks/image_tokens.py", "--json", "--repeats", "3"],
        check=True,
        capture_output=True,
        text=True,
        cwd=root,
        timeout=120,
    )
    line = json.loads(done.stdout)
    assert {"speedup_vs_65_steps", "speedup_vs_default", "max_abs_diff"} <= set(line)
    assert line["max_abs_diff"] <= 1e-5
    # The figures are measured on a quiet machine; here only that the direction is right.
    assert line["speedup_vs_default"] > line["speedup_vs_65_steps"] > 3
