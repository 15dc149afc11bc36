"""Packs that do not fit are told with what ran and what would fit; a trial leaves no trace."""

import io
import json
import re

import pytest
import torch
from rich.console import Console

from mllm_npu.device.memory import MemoryGauge
from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.errors import TrainingError
from mllm_npu.train.faults import FaultPolicy
from mllm_npu.train.feature_cache import FeatureCache
from mllm_npu.train.memory_fit import MemoryFit, fit_memory
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.optimizer import AdamW, optimizer_tensors
from mllm_npu.train.recorder import Recorder
from mllm_npu.train.schedule import Constant
from mllm_npu.train.trainer import Trainer
from mllm_npu.train.update import Update

TRAINED = ["*", "!vision_encoder.*", "!image_decoder.*"]


class Gadget:
    """A device whose packs take memory in proportion to their tokens."""

    name = "gadget"

    def __init__(self, *, limit=4.0, idle=1.0, per_token=0.01, error=torch.OutOfMemoryError):
        self.limit, self.idle, self.per_token, self.error = limit, idle, per_token, error
        self.peak = 0.0
        self.ran = []

    def take(self, tokens):
        """Memory while a pack runs."""
        self.ran.append(tokens)
        self.peak = max(self.peak, self.idle + self.per_token * tokens)
        if self.idle + self.per_token * tokens > self.limit:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def limit_gib(self):
        return self.limit

    def now_gib(self):
        return self.idle

    def restart(self):
        self.peak = 0.0

    def peak_gib(self):
        return self.peak

    def is_out_of_memory(self, error):
        return MemoryGauge(torch.device("cpu")).is_out_of_memory(error)


class Thirsty(MultimodalObjective):
    """Takes the memory of a gadget."""

    gadget = None

    def forward(self, batch):
        losses = super().forward(batch)
        if self.gadget is not None:
            self.gadget.take(batch.num_tokens)
        return losses


@pytest.fixture
def make_objective(make_model):
    def make(gadget=None, *, cached=False, **settings):
        objective = Thirsty(
            model=make_model(),
            trainable=TRAINED,
            feature_cache=FeatureCache(max_gib=0.01) if cached else None,
            **settings,
        )
        objective.gadget = gadget
        return objective

    return make


@pytest.fixture
def make_update(make_objective, put_in_place):
    def make(gadget=None):
        return Update(
            placed=put_in_place(make_objective(gadget)),
            optimizer=AdamW(lr=1e-2),
            faults=FaultPolicy(),
            clip_grad_norm=1.0,
            ema_decay=0.9,
            seed=0,
        )

    return make


@pytest.fixture
def packs(make_batch):
    """A quarter of 125 tokens and 25 tiles, and the whole of 500 and 100."""
    return [make_batch("r" * 100, seed=3), make_batch("r" * 25, seed=2)]


def test_packs_are_tried_from_small_to_large_and_the_largest_peak_is_told(make_update, packs):
    gadget = Gadget(limit=8.0)
    assert MemoryFit(gauge=gadget).try_packs(make_update(gadget), packs) == 6.0
    assert gadget.ran == [125, 500]


def test_a_pack_that_does_not_fit_is_told_with_what_ran_and_what_to_set(make_update, packs):
    gadget = Gadget(limit=4.0, idle=1.0)
    with pytest.raises(TrainingError) as caught:
        MemoryFit(gauge=gadget).try_packs(make_update(gadget), packs)
    # 90 % of 4 GiB, without the 1 GiB of the run itself, for packs of 0.01 GiB per token.
    assert str(caught.value) == (
        "A pack of 500 tokens and 100 tiles does not fit into the memory of gadget (4.0 GiB). "
        "A pack of 125 tokens and 25 tiles ran, with a peak of 2.2 GiB; by that about 256 tokens "
        "and 52 tiles fit. Set dataset.tokens_per_pack=256 ++dataset.tiles_per_pack=52. Or keep "
        "less: parallel.recompute=full, parallel=fsdp2 on more processes, "
        "parallel.cpu_offload=true. Its samples come from readings: 3-0, 3-1, 3-2, 3-3, 3-4, 3-5, "
        "3-6, 3-7 and 92 more."
    )
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


@pytest.mark.parametrize("limit", [3.0, 4.0, 5.0, 5.9])
@pytest.mark.parametrize("idle", [0.0, 1.0])
def test_what_is_advised_fits_and_wastes_little(make_update, packs, limit, idle):
    gadget = Gadget(limit=limit, idle=idle)
    if idle + 5.0 <= limit:
        limit = gadget.limit = 4.5
    with pytest.raises(TrainingError) as caught:
        MemoryFit(gauge=gadget).try_packs(make_update(gadget), packs)
    advised = int(re.search(r"tokens_per_pack=(\d+)", str(caught.value)).group(1))
    needed = idle + 0.01 * advised
    assert 0.9 * limit - 0.64 <= needed <= 0.9 * limit
    gadget.take(advised)


def test_where_no_smaller_pack_ran_half_is_advised(make_update, packs):
    gadget = Gadget(limit=1.5)
    with pytest.raises(TrainingError, match=r"No smaller.*=192 and \+\+\S*tiles_per_pack=50, half"):
        MemoryFit(gauge=gadget).try_packs(make_update(gadget), packs[:1])


def test_where_the_run_itself_fills_the_memory_that_is_said(make_update, packs):
    gadget = Gadget(limit=4.0, idle=3.6, per_token=0.001)
    with pytest.raises(TrainingError, match=r"Without any pack the run holds 3\.6 GiB already"):
        MemoryFit(gauge=gadget).try_packs(make_update(gadget), packs)


def test_a_pack_that_ran_once_and_does_not_later_is_made_smaller(make_update, packs):
    gadget = Gadget(limit=8.0)
    fit = MemoryFit(gauge=gadget)
    fit.try_packs(make_update(gadget), packs)
    with pytest.raises(
        TrainingError, match=r"A pack of 500 tokens .* ran.*=448 \S*tiles_per_pack=90\."
    ):
        fit.explain(torch.OutOfMemoryError("out of memory"), packs)


def test_of_several_micro_batches_the_largest_is_told_and_all_their_samples(make_batch):
    batches = [make_batch("rr", seed=1), make_batch("dr2", seed=2)]
    with pytest.raises(TrainingError, match=r"of 17 tokens and 4 tiles.*1-0, 1-1, 2-0, 2-1, 2-2\."):
        MemoryFit(gauge=Gadget()).explain(MemoryError(), batches)


def test_an_error_of_another_kind_stays_as_it_is(make_update, packs):
    class BrokenError(RuntimeError):
        def __init__(self, _):
            super().__init__("mat1 and mat2 shapes cannot be multiplied")

    gadget = Gadget(error=BrokenError)
    update = make_update(gadget)
    with pytest.raises(BrokenError):
        MemoryFit(gauge=gadget).try_packs(update, packs)
    assert all(parameter.grad is None for parameter in update.parameters.values())
    assert MemoryFit(gauge=gadget).explain(ValueError("out of memory"), packs) is None


@pytest.mark.parametrize("limit", [8.0, 4.0])
def test_a_trial_changes_neither_weights_nor_moments_and_leaves_no_gradient(
    make_update, packs, limit
):
    gadget = Gadget(limit=limit)
    update = make_update(gadget)
    kept = {**update.objective.state_dict(), **optimizer_tensors(update.optimizer)}
    before = {name: tensor.clone() for name, tensor in kept.items()}
    if limit < 6:
        with pytest.raises(TrainingError):
            MemoryFit(gauge=gadget).try_packs(update, packs)
    else:
        MemoryFit(gauge=gadget).try_packs(update, packs)
    after = {**update.objective.state_dict(), **optimizer_tensors(update.optimizer)}
    assert len(before) > 20
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in update.parameters.values())
    assert update.ema.num_updates == 0


@pytest.fixture
def make_trainer(make_objective, put_in_place, make_batches, tmp_path):
    def make(folder, *, gadget=None, memory_fit=None, cached=False, **options):
        recorder = Recorder(folder=tmp_path / folder, console=Console(file=io.StringIO()))
        objective = make_objective(gadget, cached=cached, calibration_batches=3)
        return Trainer(
            placed=put_in_place(objective),
            batches=make_batches(),
            optimizer=AdamW(lr=1e-2),
            schedule=Constant(),
            recorder=recorder,
            checkpoints=Checkpoints(folder=tmp_path / folder / "checkpoints"),
            memory_fit=memory_fit,
            **{"max_steps": 6, "checkpoint_every": 3, "log_every": 1, **options},
        )

    return make


def losses(trainer):
    lines = trainer.recorder.metrics_path.read_text().splitlines()
    return [(line["step"], line["loss"], line["grad_norm"]) for line in map(json.loads, lines)]


@pytest.mark.parametrize("cached", [False, True])
def test_a_run_that_tried_its_packs_first_is_the_same_run_to_the_bit(make_trainer, cached):
    tried = make_trainer("tried", memory_fit=fit_memory(device=torch.device("cpu")), cached=cached)
    plain = make_trainer("plain", cached=cached)
    rehearsed = []
    rehearsal = tried.batches.rehearsal
    tried.batches.rehearsal = lambda: rehearsed.append(tried.batches.consumed) or rehearsal()
    for trainer in (tried, plain):
        assert trainer.run()
    assert rehearsed == [0]
    assert tried.batches.consumed == plain.batches.consumed == 6
    assert losses(tried) == losses(plain)
    mine, theirs = (trainer.objective.state_dict() for trainer in (tried, plain))
    assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items())


def test_a_resumed_run_tries_its_packs_too_and_goes_on_as_if_it_had_not(make_trainer):
    fit = fit_memory(device=torch.device("cpu"))
    make_trainer("parts", max_steps=3).run()
    second = make_trainer("parts", memory_fit=fit)
    assert second.run(resume="auto")
    whole = make_trainer("whole")
    assert whole.run()
    assert losses(second) == losses(whole)


def test_a_finished_run_tries_nothing(make_trainer):
    make_trainer("done").run()
    gadget = Gadget(limit=0.0)
    assert make_trainer("done", gadget=gadget, memory_fit=MemoryFit(gauge=gadget)).run(
        resume="auto"
    )
    assert gadget.ran == []


def test_memory_that_runs_out_in_the_middle_is_explained_and_the_checkpoint_stays(
    make_trainer, monkeypatch
):
    gadget = Gadget(limit=8.0)
    trainer = make_trainer("run", gadget=gadget, memory_fit=MemoryFit(gauge=gadget))
    advance = trainer.recorder.advance

    def fill(step):
        advance(step)
        gadget.idle = 7.9 if step == 4 else gadget.idle

    monkeypatch.setattr(trainer.recorder, "advance", fill)
    with pytest.raises(TrainingError, match=r"^A pack of 19 tokens and 5 tiles .*5-0, 5-1, 5-2\.$"):
        trainer.run()
    assert trainer.checkpoints.latest_step() == 3
    gadget.idle = 1.0
    again = make_trainer("run", gadget=gadget, memory_fit=MemoryFit(gauge=gadget))
    assert again.run(resume="auto")


def test_without_a_trial_the_error_of_the_device_comes_through(make_trainer):
    trainer = make_trainer("run", gadget=Gadget(limit=1.0))
    with pytest.raises(torch.OutOfMemoryError):
        trainer.run()
