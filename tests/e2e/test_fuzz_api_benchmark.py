"""What clients send breaks nothing, in miniature."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_malformed_requests_break_nothing(root):
    sizes = ("--bodies", "150", "--examples", "6", "--seconds", "60")
    done = subprocess.run(
        [sys.executable, "benchmarks/fuzz_api.py", "--json", *sizes],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=280,
        check=False,
    )
    assert done.stdout, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["failures"] == []
    assert (line["server_errors"], line["hung"], line["crashes"]) == (0, 0, 0)
    assert line["bodies"] == 150
    assert line["described"] > 30
    # They reach the forms and the engine, not only the door.
    assert {"200", "400"} <= set(line["statuses"])
    assert done.returncode == 0
