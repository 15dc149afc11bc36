"""The soak in miniature: workers are killed while clients ask, nothing is lost without a word."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_clients_survive_a_worker_that_is_killed(root):
    command = [sys.executable, "benchmarks/soak.py", "--json", "--minutes", "0.4"]
    command += ["--clients", "8", "--workers", "2", "--kill-every", "8"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=root, timeout=250
    )
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["benchmark"] == "soak"
    assert line["lost_without_error"] == line["hung"] == line["leaked_slots"] == 0
    assert line["exit_code"] == 0
    assert line["kills"] >= 1
    assert line["outcomes"]["done"] > 5
    assert line["outcomes"]["left"] > 0
    assert isinstance(line["rss_growth"], float)
