"""Each rank reads its own rows of the weights, and they are those of the whole model."""

import json
import shutil
import sys

import pytest
import torch
from launching import launch
from play_loading import CASES, load_large, load_sharded
from torch import nn

from mllm_npu.models.lora import LoraRecipe
from mllm_npu.models.tiny import tiny_seed
from mllm_npu.models.weights import save_weights

pytestmark = pytest.mark.slow


def make_seed(family):
    torch.manual_seed(7)
    return tiny_seed(language=family, normalize=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    plain, untied, adapted = make_seed("llama"), make_seed("qwen3"), make_seed("llama")
    for name in ("updates", "grown", "half"):
        save_weights(folder / name, plain)
    save_weights(folder / "grown head", untied)
    (folder / "torch").mkdir()
    torch.save(plain.state_dict(), folder / "torch" / "pytorch_model.bin")
    recipe = LoraRecipe(rank=2, alpha=6.0, dropout=0.0, targets=["*.q_proj", "*.down_proj"])
    recipe.apply(adapted.language_model)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    save_weights(folder / "folded", adapted)
    (folder / "folded" / "adapter_config.json").write_text(json.dumps({"lora_alpha": 6, "r": 2}))
    return folder


@pytest.fixture(scope="module")
def ranks(weights):
    return launch(load_sharded, size=2, folder=weights)


@pytest.mark.parametrize("case", CASES)
def test_the_rows_of_every_rank_are_those_of_the_whole_model(ranks, case):
    for rank in ranks:
        found = rank[case]
        assert found["wrong"] == []
        assert found["hollow"] == []
        assert found["report"]
        assert found["tied"]
        assert 0.4 < found["kept"] < 0.6


@pytest.mark.parametrize("case", CASES)
def test_a_filled_model_computes_what_the_whole_one_does(ranks, case):
    for rank in ranks:
        loss, expected = rank[case]["losses"]
        assert loss == pytest.approx(expected, rel=2e-2 if case == "half" else 1e-5)


def test_cases_differ_in_what_they_load(ranks):
    losses = {name: found["losses"][1] for name, found in ranks[0].items()}
    assert losses["torch"] == pytest.approx(losses["updates"], rel=1e-5)
    for other in ("grown head", "folded", "grown"):
        assert losses[other] != pytest.approx(losses["torch"], rel=1e-3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc for the memory")
def test_a_rank_never_holds_the_whole_of_a_large_file(tmp_path):
    if shutil.disk_usage(tmp_path).free < 1 << 30:
        pytest.skip("needs 1 GiB of disk")
    file = tmp_path / "large.safetensors"
    write_large(file)
    (found,) = launch(load_large, size=1, folder=tmp_path, file=file)
    assert found["kept"] == 75.0
    # Its own rows, and a few pages on the way; the file has 600 MiB.
    assert found["peak"] < 2.5 * found["kept"]
    assert found["rows"] == [float(number) for number in range(6)]


def write_large(file):
    """Six tables of 100 MiB, mostly holes; row 3200, where rank 1 begins, holds a number."""
    size = 25_600 * 1024 * 4
    header = {
        f"tables.t{n}": {
            "dtype": "F32",
            "shape": [25_600, 1024],
            "data_offsets": [n * size, (n + 1) * size],
        }
        for n in range(6)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(begin + 6 * size)
        for number in range(6):
            opened.seek(begin + number * size + 3200 * 1024 * 4)
            opened.write(torch.tensor([float(number)]).numpy().tobytes())
