"""Know which accelerators exist, as rows of a table, and choose the one a run uses."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

import torch

from mllm_npu.errors import DeviceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What the rest of the package must know about one kind of device.

    Args:
        name: torch's device type.
        collective_backend: name of its ``torch.distributed`` backend.
        compute_dtype: dtype in which matrices are multiplied during training.
        ray_resource: name under which Ray counts such devices.
        extension: package that teaches torch this device, imported before it is looked for.
        remedy: what to do where the device is asked for and not found.
        visibility: variable of the environment that lists which devices a process sees.
    """

    name: str
    collective_backend: str
    compute_dtype: torch.dtype
    ray_resource: str
    extension: str | None = None
    remedy: str = ""
    visibility: str | None = None


PLATFORMS = (  # best first
    Platform(
        name="npu",
        collective_backend="hccl",
        compute_dtype=torch.bfloat16,
        ray_resource="NPU",
        extension="torch_npu",
        remedy="install the Ascend driver, CANN and torch_npu",
        visibility="ASCEND_RT_VISIBLE_DEVICES",
    ),
    Platform(
        name="cuda",
        collective_backend="nccl",
        compute_dtype=torch.bfloat16,
        ray_resource="GPU",
        remedy="install the NVIDIA driver and a CUDA build of torch",
        visibility="CUDA_VISIBLE_DEVICES",
    ),
    # bf16 autocast makes models of this project's default size 0.65-0.8 times as fast on a CPU.
    Platform(
        name="cpu",
        collective_backend="gloo",
        compute_dtype=torch.float32,
        ray_resource="CPU",
    ),
)


def platform_named(name: str) -> Platform:
    """The row of the table with this name.

    Raises:
        DeviceError: no row has it.
    """
    for platform in PLATFORMS:
        if platform.name == name:
            return platform
    known = ", ".join(platform.name for platform in PLATFORMS)
    raise DeviceError(
        f"device={name!r} was asked for, this package knows {known}. "
        "Use device=auto or one of these."
    )


def platform_of(device: torch.device) -> Platform:
    """The row that describes ``device``.

    Raises:
        DeviceError: the device's type is not in the table.
    """
    return platform_named(device.type)


def is_available(platform: Platform) -> bool:
    """Whether this machine can compute on ``platform`` now."""
    if platform.name == "cpu":
        return True
    if platform.extension is not None and load_extension(platform.extension) is not None:
        return False
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator is not None and accelerator.type == platform.name


def load_extension(name: str) -> str | None:
    """Import the package that teaches torch a device.

    Returns:
        None once it is imported, otherwise in one line why it is not.
    """
    if importlib.util.find_spec(name) is None:
        return f"{name} is not installed"
    try:
        importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        # Without its driver the extension fails while it loads shared libraries.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"{name} cannot be imported: {lines[0]}"
    return None


def available_platforms() -> tuple[Platform, ...]:
    """The rows this machine can compute on, best first; the CPU is always the last."""
    return tuple(platform for platform in PLATFORMS if is_available(platform))


def pick_device(name: str = "auto") -> torch.device:
    """Choose the device of a run.

    Args:
        name: "auto" for the best there is, or the name of a row in PLATFORMS.

    Raises:
        DeviceError: the name is unknown, or this machine has no such device.
    """
    available = available_platforms()
    wanted = available[0] if name == "auto" else platform_named(name)
    if wanted not in available:
        here = [platform.name for platform in available]
        raise DeviceError(
            f"device={name!r} was asked for, this machine has {here}. "
            f"Use device=auto, or {wanted.remedy}."
        )
    return torch.device(wanted.name)


def num_devices(device: torch.device) -> int:
    """How many devices of this type the process sees; 1 for the CPU."""
    return 1 if device.type == "cpu" else int(torch.get_device_module(device).device_count())
