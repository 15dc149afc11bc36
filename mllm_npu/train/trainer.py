"""The training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from mllm_npu.batch import Batch
from mllm_npu.device.platform import platform_of
from mllm_npu.device.process import ThreadWatch
from mllm_npu.distributed.checkpoint import Checkpoints, module_tensors
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.errors import CheckpointError, ConfigError, TrainingError
from mllm_npu.train.ema import Ema
from mllm_npu.train.loss_meter import LossMeter
from mllm_npu.train.objectives.objective import Objective
from mllm_npu.train.optimizer import AdamW, set_learning_rate
from mllm_npu.train.recorder import Recorder
from mllm_npu.train.run_state import Batches, RunState
from mllm_npu.train.schedule import Schedule
from mllm_npu.train.stop_signal import StopSignal
from mllm_npu.train.throughput import Throughput

MOST_IDLE_STEPS = 20
"""Updates in a row without any target that stop a run."""


class Trainer:
    """Minimises an objective; everything it needs comes in built.

    The loss of a step is taken over the elements of the whole step (all micro-batches, all ranks),
    so that accumulation, packing and the number of ranks do not change the result.

    Args:
        objective: model and loss; moved to ``device``.
        batches: endless data with a position.
        optimizer: recipe; built over what the objective trains.
        schedule: factor on the learning rate, asked once per update.
        recorder: takes the metrics of the main rank.
        checkpoints: where the states of the run go.
        mesh: the ranks.
        device: where to compute.
        max_steps: updates of the whole run.
        accumulate: micro-batches per update.
        clip_grad_norm: largest gradient norm; None does not clip.
        ema_decay: of the averaged weights; None keeps none.
        checkpoint_every: updates between checkpoints; one more is written at the end.
        log_every: updates between two looks at the losses.
        thread_watch: is asked every log interval to keep the CPU threads fitting; None never.
        autocast: compute in the dtype the device is best at; on a CPU that is float32 anyway.

    Attributes:
        step: updates done.
        ema: averaged weights or None.
        seconds: wall time of the run up to its last checkpoint, resumed parts included.
        cpu_seconds: processor time of this process up to there, resumed parts included.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        batches: Batches,
        optimizer: AdamW,
        schedule: Schedule,
        recorder: Recorder,
        checkpoints: Checkpoints,
        mesh: Mesh,
        device: torch.device,
        thread_watch: ThreadWatch | None = None,
        max_steps: int,
        accumulate: int = 1,
        clip_grad_norm: float | None = 1.0,
        ema_decay: float | None = None,
        checkpoint_every: int = 500,
        log_every: int = 10,
        autocast: bool = True,
    ) -> None:
        smallest = min(max_steps, accumulate, checkpoint_every, log_every)
        if smallest < 1:
            raise ConfigError(
                f"max_steps={max_steps}, accumulate={accumulate}, log_every={log_every}, "
                f"checkpoint_every={checkpoint_every} were asked for. Each must be at least 1."
            )
        if clip_grad_norm is not None and not clip_grad_norm > 0:
            raise ConfigError(
                f"clip_grad_norm={clip_grad_norm} was asked for. Use a number above 0, or null."
            )
        self.objective = objective.to(device)
        self.batches = batches
        self.parameters = objective.trained_parameters()
        self.optimizer = optimizer.build(self.parameters)
        self.schedule = schedule
        self.recorder = recorder
        self.checkpoints = checkpoints
        self.mesh = mesh
        self.device = device
        self.thread_watch = thread_watch
        self.max_steps = max_steps
        self.accumulate = accumulate
        self.clip_grad_norm = float("inf") if clip_grad_norm is None else clip_grad_norm
        self.ema = Ema(self.parameters, decay=ema_decay) if ema_decay is not None else None
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.compute_dtype = platform_of(device).compute_dtype if autocast else torch.float32
        self.step = 0
        self.seconds = self.cpu_seconds = 0.0
        self._saved_step: int | None = None
        self._idle_steps = 0
        self._meter = LossMeter()
        self._throughput = Throughput()
        self._iterator: Iterator[Batch] = iter(())
        self._state = RunState(
            objective=objective,
            optimizer=self.optimizer,
            ema=self.ema,
            batches=batches,
            device=device,
        )

    def run(self, *, resume: bool = False) -> bool:
        """Train until ``max_steps`` updates are done or a signal comes; saves either way.

        Args:
            resume: go on from the newest checkpoint; without one the run starts at 0.

        Returns:
            Whether all updates are done; False after a signal.

        Raises:
            CheckpointError: the newest checkpoint does not fit, or is there without ``resume``.
            TrainingError: a loss is not finite, or the data end.
        """
        self._begin(resume)
        try:
            with StopSignal() as stop:
                self._train(stop)
            self._log()
            self._save()
        finally:
            self.recorder.close()
        return self.step >= self.max_steps

    def export(self) -> nn.Module:
        """The trained model, with its averaged weights where they are kept; ends the training."""
        if self.ema is not None:
            self.ema.apply()
        return self.objective.model.eval()

    def _train(self, stop: StopSignal) -> None:
        self.objective.train()
        while self.step < self.max_steps and not self.mesh.any(stop.requested):
            micro_batches = self._next_batches()
            counts = self.mesh.sum(self._count(micro_batches))
            self._require_work(counts)
            for batch in micro_batches:
                self._backward(batch, counts)
            grad_norm = self._update()
            self.step += 1
            self._meter.end_step(self.step, grad_norm)
            self._throughput.count(micro_batches)
            self.recorder.advance(self.step)
            if self.step % self.log_every == 0:
                self._log()
            if self.step % self.checkpoint_every == 0:
                self._save()

    def _next_batches(self) -> list[Batch]:
        micro_batches: list[Batch] = []
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

    def _backward(self, batch: Batch, counts: dict[str, float]) -> None:
        with self._autocast():
            losses = self.objective(batch)
            loss = losses.total(counts)
        loss.backward()
        self._meter.add(self.step + 1, batch, losses, loss)

    def _autocast(self) -> torch.autocast:
        is_mixed = self.compute_dtype is not torch.float32
        return torch.autocast(self.device.type, self.compute_dtype, enabled=is_mixed)

    def _update(self) -> torch.Tensor:
        set_learning_rate(self.optimizer, self.schedule.factor(self.step, self.max_steps))
        self.mesh.sum_gradients(self.parameters.values())
        grad_norm = clip_grad_norm_(self.parameters.values(), self.clip_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
        return grad_norm

    def _begin(self, resume: bool) -> None:
        newest = self.checkpoints.latest_step()
        if newest is not None and not resume:
            raise CheckpointError(
                f"A new run was asked for, but {self.checkpoints.folder} holds one at step "
                f"{newest}. Resume it, or choose another folder."
            )
        if newest is not None:
            times = self._state.restore(self.checkpoints.load(newest))
            self._throughput = Throughput(**times)
            self.seconds, self.cpu_seconds = times["seconds"], times["cpu_seconds"]
            self.step = self._saved_step = newest
        else:
            self._throughput = Throughput()
            position = self.batches.state_dict()
            with self._autocast():
                self.objective.prepare(iter(self.batches))
            self.batches.load_state_dict(position)
            # Each rank has drawn its own first weights and measured its own data.
            self.mesh.broadcast(module_tensors(self.objective).values())
        self._iterator = iter(self.batches)
        if self.mesh.is_main:
            self.recorder.start(self.step, self.max_steps)

    def _log(self) -> None:
        if self.thread_watch is not None:
            self.thread_watch.look()
        values = self._meter.read(self.mesh)
        work = self.mesh.sum(self._throughput.work())
        if not values:
            return
        values["lr"] = self.optimizer.param_groups[0]["lr"]
        values |= self._throughput.rates(work)
        if self.batches.skipped:
            values["skipped"] = dict(self.batches.skipped)
        if self.mesh.is_main:
            self.recorder.log(self.step, values)

    def _save(self) -> None:
        if self._saved_step == self.step:
            return
        # What is not finite must not replace a good checkpoint.
        self._meter.check()
        self.seconds, self.cpu_seconds = self._throughput.seconds, self._throughput.cpu_seconds
        if self.mesh.is_main:
            times = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
            self._state.save(self.checkpoints, self.step, times=times)
        self.mesh.barrier()
        self._saved_step = self.step
