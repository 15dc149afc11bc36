"""The training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Literal

from torch import nn

from mllm_npu.batch import Batch
from mllm_npu.device.process import ThreadWatch
from mllm_npu.distributed.checkpoint import Checkpoints
from mllm_npu.distributed.placed import Placed
from mllm_npu.distributed.watchdog import Watchdog
from mllm_npu.errors import CheckpointError, ConfigError
from mllm_npu.probe import Probe
from mllm_npu.train.faults import Fault, FaultPolicy
from mllm_npu.train.feed import Feed, share_packs
from mllm_npu.train.memory_fit import MemoryFit
from mllm_npu.train.observer import Observer
from mllm_npu.train.optimizer import AdamW
from mllm_npu.train.profiling import Profile
from mllm_npu.train.recorder import Recorder
from mllm_npu.train.run_state import Batches, RunState
from mllm_npu.train.schedule import Schedule
from mllm_npu.train.stop_signal import StopSignal
from mllm_npu.train.throughput import Throughput
from mllm_npu.train.update import Update

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
        probes: what is measured now and then, by name; None measures nothing.
        throughput: counts work and time; None counts no FLOPs.
        memory_fit: tries the largest pack before the run starts; None lets it come.
        profile: traces a few steps; None none.
        thread_watch: is asked every log interval to keep the CPU threads fitting; None never.
        max_steps: updates of the whole run.
        accumulate: micro-batches per update and rank.
        packs_per_step: packs per update over all ranks, instead of ``accumulate``: the update then
            stays the same for any number of ranks; None leaves it to ``accumulate``.
        clip_grad_norm: largest gradient norm; None does not clip.
        ema_decay: of the averaged weights; None keeps none.
        checkpoint_every: updates between checkpoints; one more is written at the end.
        log_every: updates between two looks at the losses.
        save_frozen: whether checkpoints hold what is not trained as well; without it a resumed run
            takes that from where this one took it.
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
        probes: Mapping[str, Probe] | None = None,
        throughput: Throughput | None = None,
        memory_fit: MemoryFit | None = None,
        profile: Profile | None = None,
        thread_watch: ThreadWatch | None = None,
        max_steps: int,
        accumulate: int = 1,
        packs_per_step: int | None = None,
        clip_grad_norm: float | None = 1.0,
        ema_decay: float | None = None,
        checkpoint_every: int = 500,
        log_every: int = 10,
        save_frozen: bool = True,
        seed: int = 0,
    ) -> None:
        _check(max_steps, accumulate, checkpoint_every, log_every, clip_grad_norm)
        self.placed, self.mesh = placed, placed.mesh
        self.batches = batches
        self.schedule = schedule
        self.recorder, self.checkpoints = recorder, checkpoints
        self.memory_fit = memory_fit
        self.profile = profile
        self.max_steps = max_steps
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.faults = faults or FaultPolicy()
        self.update = Update(
            placed=placed,
            optimizer=optimizer,
            faults=self.faults,
            clip_grad_norm=float("inf") if clip_grad_norm is None else clip_grad_norm,
            ema_decay=ema_decay,
            seed=seed,
        )
        self.objective = self.update.objective
        self.feed = Feed(
            batches=batches,
            objective=self.objective,
            per_step=share_packs(packs_per_step, accumulate, self.mesh.data_size),
        )
        self.observer = Observer(
            mesh=self.mesh,
            recorder=recorder,
            faults=self.faults,
            throughput=throughput or Throughput(),
            probes=probes or {},
            thread_watch=thread_watch,
        )
        self.step = 0
        self.seconds = self.cpu_seconds = 0.0
        self._saved_step: int | None = None
        self._saved_good_seconds = 0.0
        self._state = RunState(
            update=self.update, batches=batches, checkpoints=checkpoints, save_frozen=save_frozen
        )

    def run(self, *, resume: Literal["auto", "never"] | int = "never") -> bool:
        """Train until ``max_steps`` updates are done or a signal comes; saves either way.

        Args:
            resume: ``auto`` goes on from the newest checkpoint, or starts where there is none;
                ``never`` refuses a folder that has one; a number is the step to go on from.

        Returns:
            Whether all updates are done; False after a signal.

        Raises:
            CheckpointError: the checkpoint does not fit, or there is one and none was wanted.
            TrainingError: bad updates that the policy does not let pass, the data end, a pack does
                not fit into memory, or another rank is gone.
        """
        folder = self.recorder.folder / "hangs"
        # Around all: torchrun sends a signal too when a rank is lost, and that must not hide which.
        with StopSignal() as stop, Watchdog.of(self.mesh, folder=folder) as dog, dog.explaining():
            self._begin(resume)
            try:
                with self.profile or nullcontext():
                    self._train(stop)
                self._look()
                self._save()
                self.checkpoints.wait()
            finally:
                self.recorder.close()
                if self.mesh.world_size == 1:
                    # Behind an error too, but of several ranks one may be gone.
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
            self.mesh.progress.note("waiting for data", step=self.step + 1, keys=())
            with self.observer.throughput.waiting():
                micro_batches = self.feed.next(self.step + 1)
            own = self.feed.count(micro_batches) | {_STOP: float(stop.requested)}
            counts = self.mesh.sum(own)
            stopping = counts.pop(_STOP) > 0
            self.feed.require_work(counts)
            self._backward(micro_batches, counts)
            grad_norm = self.update.step(self.schedule.factor(self.step, self.max_steps))
            self.step += 1
            self.observer.meter.end_step(self.step, grad_norm)
            self.observer.throughput.count(micro_batches)
            self.recorder.advance(self.step)
            self._after_step()

    def _backward(self, micro_batches: Sequence[Batch], counts: Mapping[str, float]) -> None:
        try:
            self.update.backward(
                micro_batches,
                counts,
                step=self.step + 1,
                first_pack=self.step * self.feed.per_step * self.mesh.data_size,
                meter=self.observer.meter,
            )
        except (RuntimeError, MemoryError) as error:
            if self.memory_fit is not None:
                self.memory_fit.explain(error, micro_batches)
            raise

    def _after_step(self) -> None:
        if self.step % self.log_every == 0 or self.step == self.max_steps:
            # The last one too: what rolls the run back must do so while it goes on.
            self._look()
        self.observer.measure(self.step, self.placed, is_last=self.step == self.max_steps)
        if self.step % self.checkpoint_every == 0:
            self._save()
        if self.profile is not None:
            self.profile.step()

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
            self.observer.throughput = self.observer.throughput.resumed(self._state.restore(newest))
            self.step = self._saved_step = newest
        else:
            self._prepare()
        self._rehearse()
        self.feed.begin()
        if self.mesh.is_main:
            self.recorder.start(self.step, self.max_steps)

    def _prepare(self) -> None:
        """What the objective measures before the first step, on data that all ranks see alike."""
        with self.placed.gathered():
            self.objective.prepare(self.batches.preview())
        self.mesh.broadcast(self.objective.buffers())

    def _rehearse(self) -> None:
        """Try the largest pack now, instead of running out of memory hours later."""
        if self.memory_fit is None or self.step >= self.max_steps:
            return
        self.mesh.progress.note("trial of the largest pack")
        self.objective.train()
        self.memory_fit.try_packs(self.update, self.batches.rehearsal())

    def _look(self) -> None:
        """Read and log what has happened since the last look, and act on it."""
        faults = self.observer.look(self.step, lr=self.update.lr, skipped=self.batches.skipped)
        for fault in faults:
            if fault.action == "roll_back" and self._saved_step is not None:
                self._roll_back(fault, self._saved_step)
                return

    def _roll_back(self, fault: Fault, step: int) -> None:
        """Bring the last checkpoint back; the data go on from where they are."""
        self.faults.roll_back(fault)
        self.checkpoints.wait()
        throughput = self.observer.throughput
        throughput.lose(throughput.good_seconds - self._saved_good_seconds)
        self._state.restore(step, keep_data=True)
        self.step = step
        if self.mesh.is_main:
            self.recorder.rewind(step)

    def _save(self) -> None:
        if self._saved_step == self.step:
            return
        self._look()
        with self.observer.throughput.saving():
            times = self.observer.throughput.state()
            self.seconds, self.cpu_seconds = times["seconds"], times["cpu_seconds"]
            self._state.save(self.step, times=times)
        self._saved_step = self.step
        self._saved_good_seconds = self.observer.throughput.good_seconds


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
