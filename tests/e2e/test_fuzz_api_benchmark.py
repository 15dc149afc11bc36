"""What clients send breaks nothing, in miniature: asked directly and through a controller."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("through", ["worker", "controller"])
def test_malformed_requests_break_nothing(root, through):
    sizes = ("--bodies", "150", "--examples", "6", "--seconds", "60")
    done = subprocess.run(
        [sys.executable, "benchmarks/fuzz_api.py", "--json", "--through", through, *sizes],
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
    assert line["through"] == through
    assert line["bodies"] == 150
    assert line["described"] > 30
    # They reach the forms and the engine, not only the door; a controller's workers are guarded.
    assert {"200", "400"} <= set(line["statuses"])
    assert ("401" in line["statuses"]) == (through == "controller")
    assert done.returncode == 0
