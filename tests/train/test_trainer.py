import io
import json
import os
import signal

import pytest
import torch
from rich.console import Console

from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.errors import CheckpointError, ConfigError, TrainingError
from mllm_npu.train.faults import FaultPolicy
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.optimizer import AdamW
from mllm_npu.train.recorder import Recorder
from mllm_npu.train.schedule import Cosine
from mllm_npu.train.trainer import Trainer

TRAINED = ["*", "!vision_encoder.*", "!image_decoder.*"]


@pytest.fixture
def make(make_model, make_batches, put_in_place, tmp_path):
    def make_trainer(folder="run", *, batches=None, trainable=TRAINED, **options):
        model = make_model()
        torch.manual_seed(1)
        recorder = Recorder(folder=tmp_path / folder, console=Console(file=io.StringIO()))
        settings = {"max_steps": 12, "checkpoint_every": 5, "log_every": 1, "ema_decay": 0.9}
        return Trainer(
            placed=put_in_place(
                MultimodalObjective(model=model, trainable=trainable, calibration_batches=3)
            ),
            batches=batches or make_batches(),
            optimizer=AdamW(lr=1e-2),
            schedule=Cosine(warmup_steps=2),
            recorder=recorder,
            checkpoints=Checkpoints(folder=tmp_path / folder / "checkpoints"),
            **{**settings, **options},
        )

    return make_trainer


def read_metrics(trainer):
    return [json.loads(line) for line in trainer.recorder.metrics_path.read_text().splitlines()]


def losses(trainer):
    return [(line["step"], line["loss"], line["grad_norm"]) for line in read_metrics(trainer)]


def test_loss_falls_and_everything_is_recorded(make, make_batches):
    class OneBatch(make_batches):
        def __iter__(self):
            for batch in super().__iter__():
                self.consumed = 0
                yield batch

    trainer = make(batches=OneBatch(), max_steps=40)
    assert trainer.run()
    metrics = read_metrics(trainer)
    assert [line["step"] for line in metrics] == list(range(1, 41))
    assert metrics[-1]["loss"] < 0.7 * metrics[0]["loss"]
    assert set(metrics[0]["terms"]) == {"language", "image"}
    wanted = {"loss_per_source", "loss_per_task", "drawn_loss_per_source", "lr", "grad_norm"}
    wanted |= {"tokens_per_second", "samples_per_second", "tiles_per_second", "data_wait_share"}
    assert wanted | {"seconds", "cpu_seconds"} <= set(metrics[0])
    assert trainer.seconds >= metrics[-1]["seconds"] > 0


def test_schedule_moves_once_per_update(make):
    trainer = make(accumulate=3, max_steps=6)
    trainer.run()
    expected = [1e-2 * Cosine(warmup_steps=2).factor(step, 6) for step in range(6)]
    assert [line["lr"] for line in read_metrics(trainer)] == pytest.approx(expected)


def gradients(trainer):
    trainer.update.optimizer.step = lambda: None
    trainer.update.optimizer.zero_grad = lambda set_to_none: None
    trainer.objective.train().requires_grad_(True)
    for module in trainer.objective.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    trainer.run()
    return {
        name: parameter.grad.clone()
        for name, parameter in trainer.objective.named_parameters()
        if parameter.grad is not None
    }


def test_accumulation_and_packing_do_not_change_gradients(make, make_batch):
    class Given:
        skipped = {}  # noqa: RUF012

        def __init__(self, *batches):
            self.batches = batches

        def __iter__(self):
            return iter(self.batches)

        preview = __iter__

        def state_dict(self):
            return {}

    # Halves of different size: a mean of means would differ.
    texts = {0: [2, 3, 4], 1: [5], 2: [6, 7], 3: [8]}
    whole = make_batch("rdrr", texts=texts)
    parts = [make_batch("rd", texts=texts), make_batch("rrb", texts={0: [6, 7], 1: [8]})]
    tiles = torch.cat([parts[0].tiles, parts[1].tiles[:2]])
    whole.tiles.copy_(tiles)
    options = {"max_steps": 1, "clip_grad_norm": None, "ema_decay": None}
    once = make("once", batches=Given(whole), accumulate=1, **options)
    twice = make("twice", batches=Given(*parts), accumulate=2, **options)
    for trainer in (once, twice):
        trainer.objective.calibration_batches = 1
        trainer.objective.model.drawn_features.normalize = False
    expected, found = gradients(once), gradients(twice)
    assert set(expected) == set(found)
    assert len(expected) > 5
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-6)
    assert losses(once)[0][1] == pytest.approx(losses(twice)[0][1], abs=1e-6)


def test_gradients_are_clipped(make):
    trainer = make(max_steps=1, clip_grad_norm=1e-3)
    seen = []
    step = trainer.update.optimizer.step

    def spy():
        norms = [p.grad.norm() for p in trainer.update.parameters.values() if p.grad is not None]
        seen.append(torch.stack(norms).norm().item())
        step()

    trainer.update.optimizer.step = spy
    trainer.run()
    assert seen[0] == pytest.approx(1e-3, rel=1e-2)
    assert read_metrics(trainer)[0]["grad_norm"] > 1e-2


def test_a_resumed_run_gives_the_losses_of_the_uninterrupted_one(make):
    whole = make("whole")
    whole.run()
    first = make("parts", max_steps=12)
    stop_after(first, 7)
    assert first.run() is False
    assert first.step == 8  # the step in which the signal came is the last
    second = make("parts")
    with torch.no_grad():
        for parameter in second.objective.parameters():
            parameter.add_(1.0)
    torch.manual_seed(99)
    assert second.run(resume="auto")
    assert losses(second) == losses(whole)
    assert len(losses(whole)) == 12
    for name, average in whole.update.ema.averages.items():
        assert torch.equal(second.update.ema.averages[name], average)
    assert second.seconds > first.seconds


def stop_after(trainer, step):
    advance, sent = trainer.recorder.advance, []

    def send(done):
        advance(done)
        if done == step and not sent:  # the recorder moves its bar when it logs as well
            sent.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.recorder.advance = send


def test_a_crash_after_the_checkpoint_is_repeated_from_it(make):
    whole = make("whole")
    whole.run()
    first = make("crash")

    def crash(done):
        if done == 8:
            raise RuntimeError

    first.recorder.advance = crash
    with pytest.raises(RuntimeError):
        first.run()
    assert first.checkpoints.latest_step() == 5
    second = make("crash")
    second.run(resume="auto")
    assert losses(second) == losses(whole)


def test_a_finished_run_stays_as_it_is(make):
    make("done").run()
    again = make("done")
    assert again.run(resume="auto")
    assert again.step == 12
    assert len(losses(again)) == 12


def test_a_new_run_does_not_write_over_an_old_one(make):
    make("run").run()
    with pytest.raises(CheckpointError, match="holds one at step 12"):
        make("run").run()


def test_resume_without_a_checkpoint_begins(make):
    assert make(max_steps=2).run(resume="auto")


def test_a_checkpoint_of_another_choice_of_parameters_is_refused(make):
    make("run", max_steps=2).run()
    other = make("run", trainable=["projector.*"])
    with pytest.raises(CheckpointError, match="only there"):
        other.run(resume="auto")


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(make):
    trainer = make(log_every=100, checkpoint_every=4, faults=FaultPolicy(not_finite="stop"))
    stop_after_bad = trainer.recorder.advance

    def poison(done):
        stop_after_bad(done)
        if done == 5:
            trainer.objective.model.projector.weight.data.fill_(float("nan"))

    trainer.recorder.advance = poison
    with pytest.raises(TrainingError, match=r"step 6: loss nan.*readings, drawings: 6-0"):
        trainer.run()
    assert trainer.checkpoints.latest_step() == 4


def test_data_that_end_too_soon_are_an_error(make, make_batches):
    with pytest.raises(TrainingError, match="data end at step 3"):
        make(batches=make_batches(end=3)).run()


def test_export_has_the_averages(make):
    trainer = make(max_steps=3)
    trainer.run()
    average = trainer.update.ema.averages["projector.weight"]
    assert not torch.equal(trainer.objective.model.projector.weight, average)
    model = trainer.export()
    assert torch.equal(model.projector.weight, average)
    assert not model.training


def test_calibration_does_not_move_the_data(make):
    trainer = make(max_steps=1, ema_decay=None)
    trainer.run()
    assert trainer.batches.consumed == 1
    assert trainer.objective.model.drawn_features.calibrated
    assert trainer.update.ema is None


def test_losses_are_read_every_log_interval(make):
    trainer = make(max_steps=10, log_every=4, checkpoint_every=100)
    trainer.run()
    assert [line["step"] for line in read_metrics(trainer)] == [4, 8, 10]


@pytest.mark.parametrize("name", ["max_steps", "accumulate", "log_every", "checkpoint_every"])
def test_refuses_settings_below_one(make, name):
    with pytest.raises(ConfigError, match=f"{name}=0"):
        make(**{name: 0})


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_gradients_are_never_turned_round(make, value):
    with pytest.raises(ConfigError, match=f"clip_grad_norm={value}"):
        make(clip_grad_norm=value)


def test_data_without_anything_to_learn_stop_the_run(make, monkeypatch):
    trainer = make(max_steps=100)
    counts = trainer.objective.counts
    monkeypatch.setattr(
        trainer.objective, "counts", lambda batch: dict.fromkeys(counts(batch), 0.0)
    )
    with pytest.raises(TrainingError, match=r"20 steps in a row had nothing to learn.*language"):
        trainer.run()
    assert trainer.step == 19


def test_a_step_without_targets_now_and_then_is_allowed(make, monkeypatch):
    trainer = make(max_steps=30, checkpoint_every=100)
    counts = trainer.objective.counts
    monkeypatch.setattr(
        trainer.objective,
        "counts",
        lambda batch: {name: n * (trainer.step % 12 == 0) for name, n in counts(batch).items()},
    )
    assert trainer.run()


def test_what_the_data_left_out_is_logged_by_reason(make, tmp_path):
    trainer = make(log_every=2, max_steps=4)
    trainer.batches.skipped = {"caption empty": 3, "picture cannot be read": 1}
    trainer.run()
    assert read_metrics(trainer)[-1]["skipped"] == trainer.batches.skipped
