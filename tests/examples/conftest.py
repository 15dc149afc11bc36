"""What the tests of the examples share: a tiny digits world, and examples run as a person does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mllm_npu.build import build_model
from mllm_npu.config import load_config
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.model_folder import save_model_folder

SECONDS = 250
QUIET = ("train.recorder.progress=false", "threads=1", "dataset.tokens_per_pack=640")


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """The digits world, a thirtieth of it."""
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder, scale=0.03)
    return folder


@pytest.fixture(scope="session")
def run_example(root):
    """Runs ``examples/NAME.py`` in a process of its own; gives what it prints."""

    def run(name, *arguments, folder=root):
        done = subprocess.run(
            [sys.executable, str(root / "examples" / f"{name}.py"), *map(str, arguments)],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def quiet():
    """Settings that make a training small and silent."""
    return QUIET


@pytest.fixture(scope="session")
def untrained(digits, tmp_path_factory) -> Path:
    """The folder of a model that has learnt nothing, but reads, writes and draws."""
    config = load_config("training", ["experiment=digits/decoder", f"world_dir={digits}"])
    config.generation.max_new_tokens, config.generation.image_steps = 4, 1
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("untrained") / "model"
    save_model_folder(build_model(config), config, folder)
    return folder
