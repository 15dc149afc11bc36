"""Held-out losses are the same each time, what a hand would compute, and leave no trace."""

import io
import json

import pytest
import torch
from launching import launch
from play_probes import validate
from rich.console import Console

from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.errors import ConfigError
from mllm_npu.models.tiny import tiny_seed
from mllm_npu.train.objectives.decoder import DecoderObjective
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.optimizer import AdamW
from mllm_npu.train.recorder import Recorder
from mllm_npu.train.schedule import Constant
from mllm_npu.train.trainer import Trainer
from mllm_npu.train.validation import ValidationLoss


@pytest.fixture
def placed(make_model, put_in_place):
    return put_in_place(MultimodalObjective(model=make_model(), trainable=["*"]))


def test_measured_twice_it_is_the_same_whatever_happened_between(placed, make_batches):
    probe = ValidationLoss(every=1, batches=make_batches(), num_packs=4)
    placed.module.train()  # its language model has dropout
    first = probe.measure(placed)
    torch.manual_seed(123)
    torch.rand(7)
    next(iter(probe.batches))
    assert probe.measure(placed) == first
    with torch.no_grad():
        placed.module.model.projector.weight.add_(0.1)
    assert probe.measure(placed).values["loss"] != first.values["loss"]


def test_losses_with_noise_are_measured_with_the_same_noise(put_in_place):
    from tiny_training import TinyBatches

    torch.manual_seed(0)
    placed = put_in_place(DecoderObjective(model=tiny_seed(normalize=False)))
    probe = ValidationLoss(every=1, batches=TinyBatches(placed.mesh, kinds=("draws",)), num_packs=2)
    first = probe.measure(placed).values
    torch.manual_seed(99)
    assert probe.measure(placed).values == first
    assert first["loss"] > 0


def mean_of_all(placed, batches):
    """Means per element of each term, and of each source, one element at a time."""
    terms, sources = {"language": [], "image": []}, {}
    placed.module.eval()
    with torch.no_grad():
        for batch in batches:
            losses = placed(batch)
            told = losses.per_target.tolist()
            terms["language"] += told
            for loss, sequence in zip(told, batch.target_sequences.tolist(), strict=True):
                sources.setdefault(batch.sources[sequence], []).append(loss)
            drawn = zip(losses.per_drawn.tolist(), batch.draw_weights.tolist(), strict=True)
            terms["image"] += [loss for loss, weight in drawn if weight]
    return (
        {name: sum(values) / max(len(values), 1) for name, values in found.items()}
        for found in (terms, sources)
    )


def test_it_is_the_mean_over_all_elements_of_all_packs(placed, make_batches, make_batch):
    kinds = "rdr2b"
    measured = ValidationLoss(every=1, batches=make_batches(kinds), num_packs=3).measure(placed)
    packs = [make_batch(kinds, seed=number) for number in (1, 2, 3)]
    terms, by_source = mean_of_all(placed, packs)
    values = measured.values
    assert values["terms"] == pytest.approx(terms, rel=1e-5)
    assert values["loss"] == pytest.approx(terms["language"] + 0.5 * terms["image"], rel=1e-5)
    assert values["loss_per_source"] == pytest.approx(by_source, rel=1e-5)
    assert set(values["loss_per_task"]) == {"read", "draw"}
    assert values["loss_per_task"]["draw"] == pytest.approx(by_source["drawings"], rel=1e-5)
    assert set(values["drawn_loss_per_source"]) == {"drawings"}
    assert "grad_norm" not in values
    assert measured.pictures == {}


def test_packs_of_unequal_size_count_by_their_elements(placed, make_batch):
    class Given:
        def __iter__(self):
            yield make_batch("r", texts={0: [2] * 9})
            yield make_batch("r", texts={0: [3]})

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    values = ValidationLoss(every=1, batches=Given(), num_packs=2).measure(placed).values
    terms, _ = mean_of_all(placed, Given())
    assert values["terms"] == pytest.approx(terms, rel=1e-5)
    assert values["loss"] == pytest.approx(terms["language"], rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_weights_buffers_mode_and_gradients_stay(placed, make_batches, training):
    placed.module.train(training)
    modes = {name: part.training for name, part in placed.module.named_modules()}
    before = {name: tensor.clone() for name, tensor in placed.module.state_dict().items()}
    ValidationLoss(every=1, batches=make_batches(), num_packs=2).measure(placed)
    assert {name: part.training for name, part in placed.module.named_modules()} == modes
    assert all(torch.equal(placed.module.state_dict()[n], old) for n, old in before.items())
    assert all(parameter.grad is None for parameter in placed.module.parameters())


def test_a_run_that_is_measured_trains_as_one_that_is_not(
    make_model, make_batches, put_in_place, tmp_path
):
    def run(folder, probes):
        recorder = Recorder(folder=tmp_path / folder, console=Console(file=io.StringIO()))
        trainer = Trainer(
            placed=put_in_place(MultimodalObjective(model=make_model(), trainable=["*"])),
            batches=make_batches(),
            optimizer=AdamW(lr=1e-2),
            schedule=Constant(),
            recorder=recorder,
            checkpoints=Checkpoints(folder=tmp_path / folder / "checkpoints"),
            probes=probes,
            max_steps=5,
            log_every=1,
        )
        assert trainer.run()
        lines = map(json.loads, recorder.metrics_path.read_text().splitlines())
        return list(lines)

    probe = ValidationLoss(every=2, batches=make_batches("rr", name="held out"), num_packs=2)
    measured, plain = run("measured", {"held out": probe}), run("plain", {})
    found = [line for line in measured if "validation" in line]
    assert [line["step"] for line in found] == [2, 4, 5]
    values = [line["validation"]["held out"]["loss"] for line in found]
    assert len(set(values)) == 3
    trained = [(line["step"], line["loss"]) for line in measured if "loss" in line]
    assert trained == [(line["step"], line["loss"]) for line in plain]


@pytest.mark.parametrize("num_packs", [0, -1])
def test_no_packs_are_refused(make_batches, num_packs):
    with pytest.raises(ConfigError, match=f"num_packs={num_packs}"):
        ValidationLoss(every=1, batches=make_batches(), num_packs=num_packs)


@pytest.mark.slow
def test_two_ranks_find_what_one_process_finds(tmp_path):
    kinds = {"fsdp2": {"kind": "fsdp2"}, "ddp": {"kind": "ddp"}}
    kinds["sequence"] = {"kind": "fsdp2", "sequence_size": 2}
    alone = validate(tmp_path, parallels={"alone": {}})["alone"]
    found = launch(validate, size=2, folder=tmp_path, parallels=kinds)
    assert found[0] == found[1]
    for name in kinds:
        assert found[0][name]["loss"] == pytest.approx(alone["loss"], rel=1e-5), name
        for means in ("terms", "loss_per_source", "loss_per_task", "drawn_loss_per_task"):
            assert found[0][name][means] == pytest.approx(alone[means], rel=1e-5), (name, means)
