"""Examine what ranks can only find out together: who is there, their links, each one's device."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist

from mllm_npu.device.doctor import burn_in
from mllm_npu.device.doctor.check import FAULTS, Check, examine, fault
from mllm_npu.device.platform import platform_of
from mllm_npu.distributed import links
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.roll_call import RollCall
from mllm_npu.distributed.watchdog import Watchdog

Look = Callable[[], Sequence[Check]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one rank tells the others.

    Args:
        host: name of its machine.
        machine: rows about that machine, from one rank of each.
        links: what it saw of every exchange.
        device: rows about its own device.
    """

    host: str
    machine: tuple[Check, ...]
    links: tuple[links.Link, ...]
    device: tuple[Check, ...]


class JointExamination:
    """One rank's part of an examination that all ranks make in step.

    Args:
        device: what this rank computes on.
        look: at this machine; called on one rank of each.
        timeout_seconds: how long a rank may stay silent.
        burn_in_seconds: how long each device works; None leaves it out.
        give_up: is called with the rows so far where this rank hangs in an exchange; must not
            come back.
        link_progress: see ``try_links``.
        burn_progress: see ``burn_in``.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        look: Look,
        timeout_seconds: float,
        give_up: Callable[[Sequence[Check]], None],
        burn_in_seconds: float | None = None,
        link_progress: links.Progress = lambda done, total: None,
        burn_progress: burn_in.Progress = lambda done, total: None,
    ) -> None:
        self.device = device
        self.look = look
        self.timeout_seconds = timeout_seconds
        self.burn_in_seconds = burn_in_seconds
        self.give_up = give_up
        self.link_progress = link_progress
        self.burn_progress = burn_progress
        self.rank = int(os.environ["RANK"])
        self.world_size = int(os.environ["WORLD_SIZE"])
        self._machine: tuple[Check, ...] | None = None

    def run(self) -> tuple[Check, ...]:
        """All rows, the same on every rank where nothing is broken; in bounded time."""
        try:
            roll = RollCall(
                rank=self.rank, world_size=self.world_size, timeout_seconds=self.timeout_seconds
            )
            if roll.missing:
                return (*self._own_machine(), self._absent(roll.missing))
            # Longer than the watch, which knows who is missing where the library only ends itself.
            mesh = Mesh.start(self.device, timeout_seconds=2 * self.timeout_seconds)
            watchdog = self._watch(mesh)
        except FAULTS as error:
            return (*self._own_machine(), _no_meeting(error))
        try:
            with watchdog, watchdog.explaining():
                found = self._exchange(mesh)
                mesh.barrier()
        except FAULTS as error:
            verdict = watchdog.verdict or f"{type(error).__name__}: {error}"
            return (*self._own_machine(), self._broken(mesh, verdict))
        return self._join(found)

    def _watch(self, mesh: Mesh) -> Watchdog:
        return Watchdog(
            progress=mesh.progress,
            rank=mesh.rank,
            world_size=mesh.world_size,
            timeout_seconds=self.timeout_seconds,
            end=lambda verdict: self.give_up((*self._own_machine(), self._broken(mesh, verdict))),
        )

    def _exchange(self, mesh: Mesh) -> list[Found]:
        seen = links.try_links(mesh, self.device, progress=self.link_progress)
        device: tuple[Check, ...] = ()
        if self.burn_in_seconds is not None:
            mesh.progress.note("burn-in")
            device = examine("burn-in", lambda: self._burn(mesh), state="bad")
        is_first_here = os.environ.get("LOCAL_RANK", str(self.rank)) == "0"
        own = Found(
            host=os.uname().nodename,
            machine=self._own_machine() if is_first_here else (),
            links=tuple(seen),
            device=device,
        )
        found: list[Found] = [own] * mesh.world_size
        with mesh.progress.inside("gathering of what all ranks found"):
            dist.all_gather_object(found, own)
        return found

    def _burn(self, mesh: Mesh) -> Check:
        def move(done: float, total: float) -> None:
            # Ranks that are at work are not silent.
            mesh.progress.note("burn-in")
            self.burn_progress(done, total)

        assert self.burn_in_seconds is not None
        result = burn_in.burn_in(self.device, self.burn_in_seconds, progress=move)
        return burn_in.judge(result)

    def _join(self, found: Sequence[Found]) -> tuple[Check, ...]:
        rows = [*found[0].machine]
        for other in found[1:]:
            rows += [
                replace(check, name=f"{other.host}: {check.name}")
                for check in other.machine
                if check.state != "good"
            ]
        hosts = Counter(each.host for each in found)
        backend = platform_of(self.device).collective_backend
        told = ", ".join(f"{count} on {host}" for host, count in hosts.items())
        rows.append(Check(name="ranks", found=f"all {len(found)} are here ({told}), {backend}"))
        rows += links.judge([each.links for each in found], self.device)
        return (*rows, *compare_devices([each.device for each in found]))

    def _own_machine(self) -> tuple[Check, ...]:
        if self._machine is None:
            self._machine = tuple(self.look())
        return self._machine

    def _absent(self, missing: Sequence[int]) -> Check:
        numbers = ", ".join(str(rank) for rank in missing)
        return Check(
            name="ranks",
            state="bad",
            found=f"rank {numbers} of {self.world_size} did not answer within "
            f"{self.timeout_seconds:.0f} s",
            advice="look at what these processes print, and whether their hosts reach "
            f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}",
        )

    def _broken(self, mesh: Mesh, verdict: str) -> Check:
        return Check(
            name="links",
            state="bad",
            found=f"stopped at {mesh.progress.collective}: {' '.join(verdict.split())}",
            advice="look at the rank that is named; between hosts at the firewall and at "
            "the interface (GLOO_SOCKET_IFNAME and that of the accelerator's library)",
        )


def compare_devices(devices: Sequence[Sequence[Check]]) -> tuple[Check, ...]:
    """Rows of every rank's device, and one for ranks whose losses are not what most others got.

    Args:
        devices: of every rank in order.
    """
    rows = [
        replace(check, name=f"rank {rank} {check.name}")
        for rank, checks in enumerate(devices)
        for check in checks
    ]
    losses = {
        rank: check.figures["last_loss"]
        for rank, checks in enumerate(devices)
        for check in checks
        if "last_loss" in check.figures
    }
    if len(losses) < 2:
        return tuple(rows)
    usual, _ = Counter(losses.values()).most_common(1)[0]
    others = [
        f"rank {rank} ({loss - usual:+.2g})" for rank, loss in losses.items() if loss != usual
    ]
    if not others:
        rows.append(Check(name="burn-in of all", found="all ranks got the same losses"))
    else:
        rows.append(
            Check(
                name="burn-in of all",
                state="notice",
                found=f"other losses than most ranks: {', '.join(others)}",
                advice="devices of one kind and one software give the same; look at these",
            )
        )
    return tuple(rows)


def _no_meeting(error: BaseException) -> Check:
    told = fault("ranks", error, state="bad")
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    advice = f"see that every host reaches {where}, the address all ranks were given"
    return replace(
        told, found=told.found.replace("could not be looked at", "no meeting"), advice=advice
    )
