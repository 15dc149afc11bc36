"""The training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from torch import nn

from mllm_npu.batch import Batch
from mllm_npu.device.process import ThreadWatch
from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.distributed.placed import Placed
from mllm_npu.errors import CheckpointError, ConfigError, TrainingError
from mllm_npu.train.faults import Fault, FaultPolicy
from mllm_npu.train.loss_meter import LossMeter
from mllm_npu.train.optimizer import AdamW
from mllm_npu.probe import Probe
from mllm_npu.train.recorder import Recorder
from mllm_npu.train.run_state import Batches, RunState
from mllm_npu.train.schedule import Schedule
from mllm_npu.train.stop_signal import StopSignal
from mllm_npu.train.throughput import Throughput
from mllm_npu.train.update import Update

MOST_IDLE_STEPS = 20
"""Updates in a row without any target that stop a run."""
_STOP = "ranks that were asked to stop"


class Trainer:
    """Minimises an objective; everything it needs comes in built.

    The loss of a step is taken over the elements of the whole step (all micro-batches, all ranks),
    so that accumulation, packing and the number of ranks do not change the result.

    Args:
        placed: model and loss in their place, values and all.
        batches: endless data with a position.
        optimizer: recipe; built over what the objective trains.
        schedule: factor on the learning rate, asked once per update.
        recorder: takes the metrics of the main rank.
        checkpoints: where the states of the run go.
        faults: what is done about bad updates; None is ``FaultPolicy()``.
        probes: what is measured now and then.
        thread_watch: is asked every log interval to keep the CPU threads fitting; None never.
        max_steps: updates of the whole run.
        accumulate: micro-batches per update and rank.
        packs_per_step: packs per update over all ranks, instead of ``accumulate``: the update then
            stays the same for any number of ranks; None leaves it to ``accumulate``.
        clip_grad_norm: largest gradient norm; None does not clip.
        ema_decay: of the averaged weights; None keeps none.
        checkpoint_every: updates between checkpoints; one more is written at the end.
        log_every: updates between two looks at the losses.
        seed: of what packs draw at random.

    Attributes:
        step: updates done.
        seconds: wall time of the run up to its last checkpoint, resumed parts included.
        cpu_seconds: processor time of this process up to there, resumed parts included.

    Raises:
        ConfigError: numbers that make no sense, or packs that cannot be shared out.
    """

    def __init__(
        self,
        *,
        placed: Placed,
        batches: Batches,
        optimizer: AdamW,
        schedule: Schedule,
        recorder: Recorder,
        checkpoints: Checkpoints,
        faults: FaultPolicy | None = None,
        probes: Sequence[Probe] = (),
        thread_watch: ThreadWatch | None = None,
        max_steps: int,
        accumulate: int = 1,
        packs_per_step: int | None = None,
        clip_grad_norm: float | None = 1.0,
        ema_decay: float | None = None,
        checkpoint_every: int = 500,
        log_every: int = 10,
        seed: int = 0,
    ) -> None:
        _check(max_steps, accumulate, checkpoint_every, log_every, clip_grad_norm)
        self.placed, self.mesh = placed, placed.mesh
        self.batches = batches
        self.schedule = schedule
        self.recorder = recorder
        self.checkpoints = checkpoints
        self.faults = faults or FaultPolicy()
        self.probes = probes
        self.thread_watch = thread_watch
        self.max_steps = max_steps
        self.accumulate = _share_packs(packs_per_step, accumulate, self.mesh.data_size)
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.update = Update(
            placed=placed,
            optimizer=optimizer,
            faults=self.faults,
            clip_grad_norm=float("inf") if clip_grad_norm is None else clip_grad_norm,
            ema_decay=ema_decay,
            seed=seed,
        )
        self.objective = self.update.objective
        self.step = 0
        self.seconds = self.cpu_seconds = 0.0
        self._saved_step: int | None = None
        self._idle_steps = 0
        self._meter = LossMeter()
        self._throughput = Throughput()
        self._iterator: Iterator[Batch] = iter(())
        self._state = RunState(update=self.update, batches=batches, checkpoints=checkpoints)

    def run(self, *, resume: Literal["auto", "never"] | int = "never") -> bool:
        """Train until ``max_steps`` updates are done or a signal comes; saves either way.

        Args:
            resume: ``auto`` goes on from the newest checkpoint, or starts where there is none;
                ``never`` refuses a folder that has one; a number is the step to go on from.

        Returns:
            Whether all updates are done; False after a signal.

        Raises:
            CheckpointError: the checkpoint does not fit, or there is one and none was wanted.
            TrainingError: bad updates that the policy does not let pass, or the data end.
        """
        self._begin(resume)
        try:
            with StopSignal() as stop:
                self._train(stop)
            self._look()
            self._save()
            self.checkpoints.wait()
        finally:
            self.recorder.close()
            if self.mesh.world_size == 1:
                # Behind an error too: what was begun is finished. Of several ranks one may be gone.
                self.checkpoints.wait()
        return self.step >= self.max_steps

    def export(self) -> nn.Module:
        """The trained model, with its averaged weights where they are kept; ends the training."""
        if self.update.ema is not None:
            self.update.ema.apply()
        return self.objective.model.eval()

    def _train(self, stop: StopSignal) -> None:
        self.objective.train()
        stopping = False
        while self.step < self.max_steps and not stopping:
            micro_batches = self._next_batches()
            counts = self.mesh.sum(self._count(micro_batches) | {_STOP: float(stop.requested)})
            stopping = counts.pop(_STOP) > 0
            self._require_work(counts)
            self.update.backward(
                micro_batches,
                counts,
                step=self.step + 1,
                first_pack=self.step * self.accumulate * self.mesh.data_size,
                meter=self._meter,
            )
            grad_norm = self.update.step(self.schedule.factor(self.step, self.max_steps))
            self.step += 1
            self._meter.end_step(self.step, grad_norm)
            self._throughput.count(micro_batches)
            self.recorder.advance(self.step)
            self._after_step()

    def _after_step(self) -> None:
        if self.step % self.log_every == 0:
            self._look()
        for probe in self.probes:
            if self.step % probe.every == 0 or self.step == self.max_steps:
                self._measure(probe)
        if self.step % self.checkpoint_every == 0:
            self._save()

    def _next_batches(self) -> list[Batch]:
        micro_batches: list[Batch] = []
        self.mesh.progress.note("waiting for data", step=self.step + 1, keys=())
        with self._throughput.waiting():
            for _ in range(self.accumulate):
                batch = next(self._iterator, None)
                if batch is None:
                    raise TrainingError(
                        f"The data end at step {self.step} of {self.max_steps}. "
                        "Let them repeat (epochs=null), or lower max_steps."
                    )
                micro_batches.append(batch)
        return micro_batches

    def _count(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        counts: dict[str, float] = {}
        for batch in micro_batches:
            for name, count in self.objective.counts(batch).items():
                counts[name] = counts.get(name, 0.0) + count
        return counts

    def _require_work(self, counts: Mapping[str, float]) -> None:
        """Stop a run whose data have nothing for its objective, instead of training on nothing."""
        self._idle_steps = 0 if any(counts.values()) else self._idle_steps + 1
        if self._idle_steps >= MOST_IDLE_STEPS:
            raise TrainingError(
                f"{self._idle_steps} steps in a row had nothing to learn from ({', '.join(counts)} "
                "had no elements). Choose data that go with this objective."
            )

    def _begin(self, resume: Literal["auto", "never"] | int) -> None:
        newest = self.checkpoints.latest_step()
        if isinstance(resume, int):
            newest = resume
        elif newest is not None and resume == "never":
            raise CheckpointError(
                f"A new run was asked for, but {self.checkpoints.folder} holds one at step "
                f"{newest}. Resume it, or choose another folder."
            )
        if newest is not None:
            self._throughput = Throughput(**self._state.restore(newest))
            self.step = self._saved_step = newest
        else:
            self._throughput = Throughput()
            self._prepare()
        self._iterator = iter(self.batches)
        if self.mesh.is_main:
            self.recorder.start(self.step, self.max_steps)

    def _prepare(self) -> None:
        """What the objective measures before the first step; its batches come again."""
        position = self.batches.state_dict()
        with self.placed.gathered():
            self.objective.prepare(iter(self.batches))
        self.batches.load_state_dict(position)
        # Each rank has measured its own data.
        self.mesh.broadcast(self.objective.buffers())

    def _look(self) -> None:
        """Read the losses since the last look, act on bad updates, and log."""
        if self.thread_watch is not None:
            self.thread_watch.look()
        outcomes = self._meter.look(self.mesh)
        faults = self.faults.judge(outcomes)
        self._meter.drop([fault.outcome.step for fault in faults])
        values = self._meter.read(self.mesh)
        work = self.mesh.sum(self._throughput.work())
        if outcomes:
            values["lr"] = self.update.lr
            values |= self._throughput.rates(work)
            values["faults"] = dict(self.faults.counts)
            if self.batches.skipped:
                values["skipped"] = dict(self.batches.skipped)
            if self.mesh.is_main:
                self.recorder.log(self.step, values)
        for fault in faults:
            self._handle(fault)

    def _handle(self, fault: Fault) -> None:
        self.recorder.tell_fault(fault, rank=self.mesh.rank)
        if fault.action == "roll_back" and self._saved_step is not None:
            self.faults.roll_back(fault)
            self.checkpoints.wait()
            self._state.restore(self._saved_step, keep_data=True)
            self.step = self._saved_step

    def _measure(self, probe: Probe) -> None:
        self.mesh.progress.note(f"{type(probe).__name__}", keys=())
        measured = probe.measure(self.placed)
        self.objective.train()
        if self.mesh.is_main:
            self.recorder.log_probe(self.step, measured)

    def _save(self) -> None:
        if self._saved_step == self.step:
            return
        self._look()
        self.seconds, self.cpu_seconds = self._throughput.seconds, self._throughput.cpu_seconds
        times = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        self._state.save(self.step, times=times)
        self._saved_step = self.step


def _check(
    max_steps: int,
    accumulate: int,
    checkpoint_every: int,
    log_every: int,
    clip_grad_norm: float | None,
) -> None:
    if min(max_steps, accumulate, checkpoint_every, log_every) < 1:
        raise ConfigError(
            f"max_steps={max_steps}, accumulate={accumulate}, log_every={log_every}, "
            f"checkpoint_every={checkpoint_every} were asked for. Each must be at least 1."
        )
    if clip_grad_norm is not None and not clip_grad_norm > 0:
        raise ConfigError(
            f"clip_grad_norm={clip_grad_norm} was asked for. Use a number above 0, or null."
        )


def _share_packs(packs_per_step: int | None, accumulate: int, ranks: int) -> int:
    """Micro-batches per update and rank."""
    if packs_per_step is None:
        return accumulate
    if packs_per_step < 1 or packs_per_step % ranks:
        raise ConfigError(
            f"packs_per_step={packs_per_step} was asked for, and {ranks} ranks see data of their "
            "own. Give a multiple of that, or start a number of ranks that divides it."
        )
    return packs_per_step // ranks
