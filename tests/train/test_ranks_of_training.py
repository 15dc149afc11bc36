"""However a model is spread over ranks, it trains to what one process trains to.

In every step one rank reads, one draws, one has text alone and one has nothing at all.
"""

import pytest
import torch
from launching import launch
from tiny_training import metrics, stored, train, train_all

FSDP = {"kind": "fsdp2"}
BF16 = {"compute_dtype": "bfloat16"}
OBJECTIVES = ("cached", "lora", "contrast", "caption", "decoder")
ON_TWO = {
    "ddp": {"parallel": {"kind": "ddp"}},
    "fsdp2": {"parallel": FSDP},
    "sequence": {"parallel": FSDP | {"sequence_size": 2}},
    "full": {"parallel": FSDP | {"recompute": "full"}},
    "selective": {"parallel": FSDP | {"recompute": "selective"}},
    "offload": {"parallel": FSDP | {"cpu_offload": True}},
    "kept": {"parallel": FSDP | {"reshard_after_forward": False, "sum_gradients_once": True}},
    "bf16": {"parallel": FSDP | BF16},
    **{f"fsdp2 {name}": {"parallel": FSDP, "objective": name} for name in OBJECTIVES},
    **{
        f"ddp {name}": {"parallel": {"kind": "ddp"}, "objective": name}
        for name in ("cached", "contrast", "decoder")
    },
}
ON_FOUR = {
    "hsdp": {"parallel": {"kind": "hsdp", "replicas": 2}},
    "hsdp sequence": {"parallel": {"kind": "hsdp", "replicas": 2, "sequence_size": 2}},
    **{
        f"fsdp2 of 4 {name}": {"parallel": FSDP, "objective": name}
        for name in ("cached", "contrast", "decoder")
    },
}
ALONE = {
    "everything": {},
    "bf16 alone": {"parallel": BF16},
    **{name: {"objective": name} for name in OBJECTIVES},
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for name, recipe in ALONE.items():
        train(folder / name, **shortened(recipe))
    for size, recipes in ((2, ON_TWO), (4, ON_FOUR)):
        shortened_ones = {name: shortened(recipe) for name, recipe in recipes.items()}
        launch(train_all, size=size, folder=folder, recipes=shortened_ones)
    return folder


def shortened(recipe):
    short = {"max_steps": 2, "packs_per_step": 4, "checkpoints": {"asynchronous": False}}
    return recipe | short


@pytest.mark.parametrize("name", [name for name in ON_TWO | ON_FOUR if name != "bf16"])
def test_losses_gradients_and_weights_are_those_of_one_process(runs, name):
    reference = runs / (ON_TWO | ON_FOUR)[name].get("objective", "everything")
    expected, found = metrics(reference), metrics(runs / name)
    assert [line["step"] for line in found] == [1, 2]
    for one, other in zip(expected, found, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-6)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-5)
        assert other["terms"] == pytest.approx(one["terms"], rel=1e-5)
        for means in ("loss_per_task", "drawn_loss_per_source"):
            assert other.get(means, {}) == pytest.approx(one.get(means, {}), rel=1e-5)
    weights = comparable(stored(reference))
    spread = comparable(stored(runs / name))
    assert set(spread) == set(weights)
    for key, value in weights.items():
        torch.testing.assert_close(spread[key], value, rtol=1e-5, atol=1e-5, msg=key)


def comparable(tensors):
    """Weights, buffers, moments and averages; each rank has random states of its own."""
    return {name: value for name, value in tensors.items() if not name.startswith("random/")}


def test_half_precision_is_near_that_of_one_process(runs):
    exact, expected = metrics(runs / "everything"), metrics(runs / "bf16 alone")
    found = metrics(runs / "bf16")
    for one, other in zip(expected, found, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=2e-3)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=5e-2)
    assert found[0]["loss"] != exact[0]["loss"]
    assert found[0]["loss"] == pytest.approx(exact[0]["loss"], rel=2e-2)
    kinds = {value.dtype for value in comparable(stored(runs / "bf16")).values()}
    assert kinds == {torch.float32}


def test_every_objective_moves_what_it_trains(runs):
    """Otherwise all of the above would hold for runs that do nothing."""
    for name in ("everything", *OBJECTIVES):
        tensors = stored(runs / name)
        moments = {key: t for key, t in tensors.items() if key.startswith("optimizer/exp_avg/")}
        still = [key for key, moment in moments.items() if not moment.abs().sum()]
        assert len(still) < len(moments) / 2, still
        assert metrics(runs / name)[0]["grad_norm"] > 1e-3


def test_the_scale_of_drawn_features_is_measured_alike(runs):
    """Before step 1, by an encoder whose parameters are sharded, on packs that all ranks see."""
    scale = stored(runs / "cached")["objective/model.drawn_features.std"]
    assert not torch.equal(scale, torch.ones_like(scale))
    for name in ("ddp cached", "fsdp2 cached", "fsdp2 of 4 cached"):
        found = stored(runs / name)["objective/model.drawn_features.std"]
        torch.testing.assert_close(found, scale)
