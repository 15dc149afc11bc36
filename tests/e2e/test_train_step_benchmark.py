"""The benchmark of the training step in miniature: it runs, and its two sides learn the same."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

SMALL = ("--rounds", "1", "--tokens", "1024", "--vocab", "1000")
SMALL += ("--width", "256", "--layers", "2", "--feed-forward", "512")
SMALL += ("--lengths", "200", "100", "150")
SPEEDUPS = ("", "_to_longest", "_drawn_encoded", "_encoder_trained")


@pytest.mark.slow
def test_a_step_is_measured_against_padded_rows_and_products(root, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(32):
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((320, 240)).save(tmp_path / f"n{number}_thing.jpeg")
    done = subprocess.run(
        [sys.executable, "benchmarks/train_step.py", "--json", "--photos", tmp_path, *SMALL],
        check=True,
        capture_output=True,
        text=True,
        cwd=root,
        timeout=280,
    )
    line = json.loads(done.stdout.splitlines()[-1])
    # What follows from counting holds everywhere; times only roughly.
    assert line["loss_difference"] < 1e-4
    assert line["lm_loss_difference_fp32"] < 1e-4
    assert line["lm_loss_difference_bf16"] < 1e-2
    assert line["lm_parameters"] == 1000 * 256 + 2 * (4 * 256**2 + 3 * 256 * 512) + 5 * 256
    assert line["padding_of_600"] > 0.5
    assert line["tiles_per_sample"] > line["read_tiles_per_sample"] > 0
    assert line["speedup_over_padded"] > 1.3
    assert line["speedup_over_original"] > line["speedup_over_padded"]
    assert all(line[f"speedup_over_padded{name}"] > 0.8 for name in SPEEDUPS)
    assert line["samples_per_cpu_second"] > line["samples_per_cpu_second_padded"] > 0.5
    shares = [line[f"mfu_{name}"] for name in ("fp32", "fp32_stock", "bf16", "bf16_stock")]
    assert all(0.1 < share < 1.2 for share in shares)
