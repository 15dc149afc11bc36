"""Look at a run now and then: read its losses, judge its updates, measure the model, log it all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mllm_npu.device.process import ThreadWatch
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.placed import Placed
from mllm_npu.probe import Probe
from mllm_npu.train.faults import Fault, FaultPolicy
from mllm_npu.train.loss_meter import LossMeter
from mllm_npu.train.recorder import Recorder
from mllm_npu.train.throughput import Throughput


class Observer:
    """What is known of a run, apart from its state.

    Args:
        mesh: the ranks; every one calls every method in step.
        recorder: takes the metrics of the main rank.
        faults: judges updates.
        throughput: counts work and time.
        probes: what is measured now and then, by name.
        thread_watch: is asked at every look to keep the CPU threads fitting; None never.

    Attributes:
        meter: takes the losses.
    """

    def __init__(
        self,
        *,
        mesh: Mesh,
        recorder: Recorder,
        faults: FaultPolicy,
        throughput: Throughput,
        probes: Mapping[str, Probe],
        thread_watch: ThreadWatch | None,
    ) -> None:
        self.mesh = mesh
        self.recorder = recorder
        self.faults = faults
        self.throughput = throughput
        self.probes = dict(probes)
        self.thread_watch = thread_watch
        self.meter = LossMeter()

    def look(self, step: int, *, lr: float, skipped: Mapping[str, int]) -> list[Fault]:
        """Read the losses since the last look and log them.

        Args:
            step: updates done.
            lr: learning rate of the last one.
            skipped: samples that were left out, by reason.

        Returns:
            The updates that went wrong, which are logged as well.

        Raises:
            TrainingError: the policy on faults says to stop.
        """
        if self.thread_watch is not None:
            self.thread_watch.look()
        outcomes = self.meter.look(self.mesh)
        try:
            faults = self.faults.judge(outcomes)
        finally:
            for fault in self.faults.newest:
                self.recorder.tell_fault(fault, rank=self.mesh.rank)
        self.meter.drop([fault.outcome.step for fault in faults])
        values: dict[str, Any] = self.meter.read(self.mesh)
        work = self.mesh.sum(self.throughput.work())
        if outcomes:
            values["lr"] = lr
            values |= self.throughput.rates(work)
            counts = {name: count for name, count in self.faults.counts.items() if count}
            values |= {"faults": counts} if counts else {}
            values |= {"skipped": dict(skipped)} if skipped else {}
            if self.mesh.is_main:
                self.recorder.log(step, values)
        return faults

    def measure(self, step: int, placed: Placed, *, is_last: bool) -> None:
        """Let the probes measure whose turn it is.

        Args:
            step: updates done.
            placed: the objective in its place.
            is_last: whether the run ends here.
        """
        for name, probe in self.probes.items():
            if step % probe.every and not is_last:
                continue
            self.mesh.progress.note(f"validation, {name}", keys=())
            with self.throughput.evaluating():
                measured = probe.measure(placed)
            placed.module.train()
            if self.mesh.is_main:
                named = {"validation": {name: dict(measured.values)}}
                self.recorder.log_probe(step, replace(measured, values=named))
