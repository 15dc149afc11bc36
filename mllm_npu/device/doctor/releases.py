"""Which versions of Python, torch, torch_npu and CANN were released to work together.

Sources: COMPATIBILITY.md of Ascend/pytorch; Requires-Dist of the wheels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SOURCE = "https://github.com/Ascend/pytorch/blob/master/COMPATIBILITY.md"
_POST = re.compile(r"(\d+\.\d+\.\d+)(?:\.post(\d+))?")
_CANN = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.?RC(\d+))?", re.IGNORECASE)
_NO_RC = 1 << 16
"""A release sorts behind every candidate for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release of torch_npu and what it was made for.

    Args:
        torch_npu: its version.
        torch: the torch it needs, exactly this one.
        cann: the CANN it was tested with; None where none is named yet.
        python: the oldest and the newest Python it has wheels for.
    """

    torch_npu: str
    torch: str
    cann: str | None
    python: tuple[tuple[int, int], tuple[int, int]]


_TO_3_13 = ((3, 10), (3, 13))
_TO_3_14 = ((3, 10), (3, 14))
RELEASES = (  # newest first; of one torch the last release first
    Release(torch_npu="2.14.0", torch="2.14.0", cann=None, python=_TO_3_14),
    Release(torch_npu="2.13.0", torch="2.13.0", cann=None, python=_TO_3_14),
    Release(torch_npu="2.12.0.post3", torch="2.12.0", cann="9.1.0", python=_TO_3_14),
    Release(torch_npu="2.12.0", torch="2.12.0", cann="9.1.0", python=_TO_3_14),
    Release(torch_npu="2.11.0.post3", torch="2.11.0", cann="9.1.0", python=_TO_3_14),
    Release(torch_npu="2.11.0", torch="2.11.0", cann="9.1.0", python=_TO_3_14),
    Release(torch_npu="2.10.0.post7", torch="2.10.0", cann="9.1.0", python=_TO_3_13),
    Release(torch_npu="2.10.0.post4", torch="2.10.0", cann="9.1.0", python=_TO_3_13),
    Release(torch_npu="2.9.1", torch="2.9.1", cann=None, python=_TO_3_13),
    Release(torch_npu="2.9.0.post9", torch="2.9.0", cann="9.1.0", python=_TO_3_13),
    Release(torch_npu="2.9.0.post6", torch="2.9.0", cann="9.1.0", python=_TO_3_13),
    Release(torch_npu="2.9.0.post2", torch="2.9.0", cann="9.0.0", python=_TO_3_13),
    Release(torch_npu="2.9.0", torch="2.9.0", cann="8.5.0", python=_TO_3_13),
)


def numbers(version: str) -> str:
    """The three numbers of a version: "2.13.0" of "2.13.0+cpu" and of "2.13.0.post2"."""
    match = _POST.match(version)
    return match.group(1) if match else version


def fits(*, torch: str, torch_npu: str) -> bool:
    """Whether the two can be loaded together: torch_npu is built for one version of torch."""
    return numbers(torch) == numbers(torch_npu)


def release_for(torch: str) -> Release | None:
    """The newest release of torch_npu for a torch; None where there is none."""
    return next((row for row in RELEASES if row.torch == numbers(torch)), None)


def release_named(torch_npu: str) -> Release | None:
    """The row of a torch_npu, or the nearest older one for the same torch; None without one."""
    rows = [row for row in RELEASES if row.torch == numbers(torch_npu)]
    older = [row for row in rows if _post(row.torch_npu) <= _post(torch_npu)]
    return max(older, key=lambda row: _post(row.torch_npu), default=None)


def install_line(torch: str) -> str:
    """The pip command that makes torch and torch_npu fit, and touches torch only if it must."""
    release = release_for(torch)
    if release is not None:
        return f"pip install --no-deps torch-npu=={release.torch_npu}"
    newest = RELEASES[0]
    return f"pip install torch=={newest.torch} torch-npu=={newest.torch_npu}"


def compare_cann(first: str, second: str) -> int:
    """-1, 0 or 1 as the first CANN is older than, as old as or newer than the second.

    Raises:
        ValueError: one of them is not a version such as 8.5.0 or 8.3.RC1.
    """
    one, other = _cann_key(first), _cann_key(second)
    return (one > other) - (one < other)


def _post(version: str) -> int:
    match = _POST.match(version)
    return int(match.group(2) or 0) if match else 0


def _cann_key(version: str) -> tuple[int, int, int, int]:
    match = _CANN.match(version)
    if match is None:
        raise ValueError(f"{version!r} is not a version of CANN such as 8.5.0 or 8.3.RC1.")
    major, minor, patch, candidate = match.groups()
    return int(major), int(minor), int(patch or 0), int(candidate or _NO_RC)
