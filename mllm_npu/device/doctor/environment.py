"""Check the environment variables of this shell against what is good on Ascend."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping

from mllm_npu.device.doctor.check import Check, State
from mllm_npu.device.doctor.variables import VARIABLES, Variable

ALLOCATORS = ("PYTORCH_NPU_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
_INTERFACES = ("HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
_NO_GROWTH = ("max_split_size_mb", "garbage_collection_threshold")
"""Settings of the allocator that do not go with segments that grow."""


def examine_environment(environment: Mapping[str, str], *, on_npu: bool) -> tuple[Check, ...]:
    """One row per variable of the table, and one for what they do together.

    Args:
        environment: variables of the process.
        on_npu: whether runs will compute on Ascend; without it rows are asides.
    """
    rows = [examine_variable(row, environment, on_npu=on_npu) for row in VARIABLES]
    return (
        _examine_allocators(environment, on_npu=on_npu),
        _examine_timeouts(environment, on_npu=on_npu),
        *rows,
    )


def examine_variable(row: Variable, environment: Mapping[str, str], *, on_npu: bool) -> Check:
    """What one variable is set to, beside what is good."""
    name = f"env {row.name}"
    value = environment.get(row.name)
    advice = f"{row.advice}: {row.reason}"
    if row.name == ALLOCATORS[0] and value is None:
        value = environment.get(ALLOCATORS[1])
    if value is None:
        wanted = row.is_wanted and on_npu
        state: State = "notice" if wanted else "good"
        found = f"not set, so {row.default}"
        return Check(name=name, state=state, found=found, advice=advice, is_aside=not wanted)
    if not on_npu and row.name not in _INTERFACES:
        return Check(name=name, found=value, advice=advice, is_aside=True)
    if unknown := _unknown_interfaces(row.name, value):
        found = f"{value}: this machine has no interface {', '.join(unknown)}"
        known = f"one of {', '.join(sorted(_interfaces()))}"
        return Check(name=name, state="bad", found=found, advice=f"{row.advice}, {known}")
    if row.accepts and not re.fullmatch(row.accepts, value.strip(), re.IGNORECASE):
        return Check(name=name, state="notice", found=value, advice=advice)
    return Check(name=name, found=value)


def _examine_allocators(environment: Mapping[str, str], *, on_npu: bool) -> Check:
    """The allocator reads one of two variables, and some of its settings exclude each other."""
    name = "env allocator"
    given = [variable for variable in ALLOCATORS if environment.get(variable)]
    if len(given) > 1:
        return Check(
            name=name,
            state="bad" if on_npu else "notice",
            found=f"{' and '.join(given)} are both set: torch_npu ends the process then",
            advice=f"unset {ALLOCATORS[1]}",
        )
    value = environment[given[0]].lower() if given else ""
    clash = [setting for setting in _NO_GROWTH if setting in value]
    if clash and "expandable_segments:true" in value:
        return Check(
            name=name,
            state="bad" if on_npu else "notice",
            found=f"{given[0]} asks for expandable_segments and for {', '.join(clash)}",
            advice=f"export {given[0]}=expandable_segments:True, one excludes the other",
        )
    return Check(name=name, found="settings go together", is_aside=True)


def _examine_timeouts(environment: Mapping[str, str], *, on_npu: bool) -> Check:
    """An event must wait longer than the collective it stands behind."""
    name = "env timeouts"
    defaults = {row.name: row.default for row in VARIABLES}
    texts = {
        variable: environment.get(variable, defaults[variable])
        for variable in ("HCCL_EXEC_TIMEOUT", "HCCL_EVENT_TIMEOUT")
    }
    told = ", ".join(f"{variable}={text}" for variable, text in texts.items())
    if not on_npu:
        return Check(name=name, found=told, is_aside=True)
    if not all(text.isdigit() for text in texts.values()):
        advice = f"unset {' '.join(texts)}"
        return Check(name=name, state="bad", found=f"{told}: no whole seconds", advice=advice)
    execution, event = (int(text) for text in texts.values())
    if event == 0 or 0 < execution < event:
        return Check(name=name, found=told, is_aside=True)
    advice = f"export HCCL_EVENT_TIMEOUT={execution + 32 if execution else 0}"
    return Check(
        name=name,
        state="bad",
        found=f"{told}: an event gives up before the collective it waits for",
        advice=advice,
    )


def _unknown_interfaces(variable: str, value: str) -> list[str]:
    """Interfaces a variable names that are not here; HCCL's ``^`` and ``=`` are respected."""
    if variable not in _INTERFACES or value.startswith("^"):
        return []
    here = _interfaces()
    if variable == "HCCL_SOCKET_IFNAME" and not value.startswith("="):
        return [part for part in _parts(value) if not any(name.startswith(part) for name in here)]
    return [part for part in _parts(value.removeprefix("=")) if part not in here]


def _parts(value: str) -> Iterable[str]:
    return (part.strip() for part in value.split(",") if part.strip())


def _interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}
