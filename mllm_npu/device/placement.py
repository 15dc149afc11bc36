"""Share out the accelerators of a machine among processes: each of them sees one alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from mllm_npu.device.platform import Platform, num_devices, pick_device, platform_of
from mllm_npu.errors import DeviceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a process computes.

    Args:
        name: as it is told to the person.
        device: what the process asks ``pick_device`` for.
        variables: of its environment; with them no memory and no thread of it can be on another
            device than its own.
    """

    name: str
    device: str
    variables: Mapping[str, str]


def share_out(
    wanted: str, num_processes: int, *, variables: Mapping[str, str] = os.environ
) -> list[Place]:
    """A place for each process: one device after the other, and from the first one again.

    Args:
        wanted: as ``pick_device`` takes it, or one device by its number: ``npu:2``.
        num_processes: that compute.
        variables: of this process; which devices it sees is what there is to share.

    Raises:
        DeviceError: there is no such device.
    """
    kind, colon, number = wanted.partition(":")
    device = pick_device(kind)
    platform, count = platform_of(device), num_devices(device)
    numbers = [*range(count)]
    if colon:
        numbers = [each for each in numbers if str(each) == number and platform.visibility]
    if not numbers:
        here = f"{count} of {platform.name}, from 0 on" if platform.visibility else platform.name
        raise DeviceError(
            f"device={wanted!r} was asked for, this machine has {here}. Use device={kind}, or the "
            "number of one that is there."
        )
    places = [_place(platform, each, variables) for each in numbers]
    return [places[each % len(places)] for each in range(num_processes)]


def _place(platform: Platform, number: int, variables: Mapping[str, str]) -> Place:
    if platform.visibility is None:
        return Place(name=platform.name, device=platform.name, variables={})
    seen = variables.get(platform.visibility)
    # Devices are numbered anew for a process that does not see all of them.
    known = seen.split(",")[number].strip() if seen else str(number)
    return Place(
        name=f"{platform.name}:{number}",
        device=platform.name,
        variables={platform.visibility: known},
    )
