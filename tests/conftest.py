"""What every test shares: one thread, one seed, no network, and the folder beside the project."""

import os
from pathlib import Path

# Before any library reads them: nothing is fetched, and a command's help is not cut short.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["COLUMNS"] = "200"

import pytest
import torch

from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tests run side by side; two threads each on busy cores would be slower, not faster."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed(one_thread) -> int:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
    return 0


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the project with recorded vectors and photos; a clone has none."""
    folder = ROOT.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip("the folder ../shared with the recorded vectors is not here")
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A data folder that holds a small tokenizer with image tokens, and nothing else."""
    folder = tmp_path_factory.mktemp("world")
    tokenizer = train_tokenizer(["draw a seven", "which digit is this?"], vocab_size=300)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=16, num_locations=0))
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder
