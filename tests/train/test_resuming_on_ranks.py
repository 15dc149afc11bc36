"""A checkpoint of two ranks goes on on one, two or four, in whatever kind, from the same bits."""

import json
import shutil

import pytest
from launching import launch
from play_checkpoints import resume, train_and_stop
from safetensors import safe_open

from mllm_npu.errors import CheckpointError

SHORT = {"packs_per_step": 4, "objective": "cached"}
FSDP = SHORT | {"parallel": {"kind": "fsdp2"}}
DDP = SHORT | {"parallel": {"kind": "ddp"}}
HSDP = SHORT | {"parallel": {"kind": "hsdp", "replicas": 2}}
ALONE = SHORT | {"parallel": {"kind": "single"}}
PLACES = {
    1: {"alone": ALONE},
    2: {"fsdp2": FSDP, "ddp": DDP},
    4: {"fsdp2 of 4": FSDP, "hsdp": HSDP},
}
SAME_SIZE = {"fsdp2": "whole", "ddp": "whole ddp"}
STEPS = 3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("resumed")


@pytest.fixture(scope="module")
def before(folder):
    """Whole runs of two ranks, and ones that stop in the middle; digests of their ends."""
    runs = {
        "whole": FSDP | {"max_steps": STEPS},
        "whole ddp": DDP | {"max_steps": STEPS},
        "half": FSDP | {"max_steps": 2, "checkpoints": {"config": "seed: 1\n"}},
        "half ddp": DDP | {"max_steps": 2},
    }
    ranks = launch(train_and_stop, size=2, folder=folder, runs=runs)
    assert ranks[0] == ranks[1]
    return ranks[0]


@pytest.fixture(scope="module")
def after(folder, before):
    found = {}
    for size, recipes in PLACES.items():
        for name in recipes:
            shutil.copytree(folder / ("half ddp" if name == "ddp" else "half"), folder / name)
        if size == 1:
            found |= resume(folder, runs=recipes, steps=STEPS)
            continue
        ranks = launch(resume, size=size, folder=folder, runs=recipes, steps=STEPS)
        for other in ranks[1:]:
            assert all(other[name]["came back"] == ranks[0][name]["came back"] for name in recipes)
        found |= ranks[0]
    return found


@pytest.mark.parametrize("name", [name for recipes in PLACES.values() for name in recipes])
def test_every_bit_comes_back_on_any_number_of_ranks(before, after, name):
    saved = before["half ddp" if name == "ddp" else "half"]
    assert after[name]["came back"] == saved
    assert {key for key in saved if key.startswith("ema/")}
    assert {key for key in saved if key.startswith("exp_avg_sq/")}
    assert saved["ema updates"] == "2"
    assert saved["packs"] == "8"


@pytest.mark.parametrize("name", SAME_SIZE)
def test_the_same_ranks_go_on_with_the_same_bits(folder, after, name):
    lines = (folder / SAME_SIZE[name] / "metrics.jsonl").read_text().splitlines()
    losses = [[line["step"], line["loss"]] for line in map(json.loads, lines)]
    assert [list(pair) for pair in after[name]["losses"]] == losses
    assert len(losses) == STEPS


@pytest.mark.parametrize("name", [name for recipes in PLACES.values() for name in recipes])
def test_other_ranks_go_on_with_the_same_losses(after, name):
    losses = dict(after["fsdp2"]["losses"])
    assert dict(after[name]["losses"]) == pytest.approx(losses, rel=1e-6)


def test_each_rank_writes_its_rows_and_the_index_knows_where(folder, before):
    checkpoint = folder / "half" / "checkpoints" / "step-00000002"
    kept = {path.name: path.stat().st_size for path in checkpoint.iterdir()}
    shards = sorted(name for name in kept if name.endswith(".safetensors"))
    assert set(kept) - set(shards) == {"config.yaml", "index.json", "state.json"}
    assert (checkpoint / "config.yaml").read_text() == "seed: 1\n"
    assert len(shards) == 2
    assert 0.7 < kept[shards[0]] / kept[shards[1]] < 1.5
    index = json.loads((checkpoint / "index.json").read_text())["tensors"]
    table = index["objective/model.language_model.causal_lm.model.embed_tokens.weight"]
    assert [piece["offsets"] for piece in table["pieces"]] == [[0, 0], [32, 0]]
    assert sorted(piece["file"] for piece in table["pieces"]) == shards
    for shard in shards:
        with safe_open(checkpoint / shard, framework="pt") as opened:
            assert list(opened.keys())
    assert {name.split("/")[1] for name in index if name.startswith("random/")} == {"0", "1"}


def test_another_model_or_another_choice_is_refused_with_names(folder, before):
    with pytest.raises(CheckpointError, match=r"new here \['language.*lora_A.*only there \['lang"):
        resume(folder, runs={"half": ALONE | {"objective": "lora"}}, steps=STEPS)
    with pytest.raises(CheckpointError, match=r"new here \['vision_encoder\."):
        resume(folder, runs={"half": ALONE | {"objective": "everything"}}, steps=STEPS)
