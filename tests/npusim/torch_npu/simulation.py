"""What only the simulation can do: say what a program did, and refuse what it should not do."""

import atexit
import dataclasses
import functools
import json
import os
import sys
import threading
import traceback
from pathlib import Path

import torch

from torch_npu import _C

RULES = ("float64", "fallbacks", "syncs", "cuda")
_FRAMES = 12
_CUDA_CALLS = (
    "current_device",
    "current_stream",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "get_rng_state",
    "ipc_collect",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "reset_peak_memory_stats",
    "set_device",
    "synchronize",
)
_cuda_roots: list[str] = []
_sync_stacks: dict[str, str] = {}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What the process did since the last reset; names with how often, unless said otherwise.

    Args:
        operators: operators that ran on the device, such as "aten::add.Tensor", "npu::npu_swiglu".
        fallbacks: operators without a kernel, which real hardware runs on the CPU.
        syncs: causes why the host waited for the device.
        sync_stacks: the Python stack of each cause's first occurrence.
        float64: places with float64 or complex tensors on the device.
        collective_calls: collectives of hccl.
        collective_bytes: bytes that went into them.
    """

    operators: dict[str, int]
    fallbacks: dict[str, int]
    syncs: dict[str, int]
    sync_stacks: dict[str, str]
    float64: dict[str, int]
    collective_calls: dict[str, int]
    collective_bytes: dict[str, int]


def stats(*, reset=False):
    """What the process has done so far; ``reset`` begins anew."""
    found = Statistics(**_C.read_statistics(), sync_stacks=dict(_sync_stacks))
    if reset:
        _C.reset_statistics()
        _sync_stacks.clear()
    return found


def write_stats(path):
    """Write what ``stats`` says to a JSON file."""
    Path(path).write_text(json.dumps(dataclasses.asdict(stats()), indent=1), encoding="utf-8")


def set_memory_limit(num_bytes, device=0):
    """Let a device have this much memory; None gives the 64 GiB it has at first."""
    _C.set_memory_limit(device, 64 << 30 if num_bytes is None else num_bytes)


def forbid_float64(on=True):
    """Refuse float64 and complex tensors on the device."""
    _C.forbid_float64(on)


def forbid_fallbacks(on=True):
    """Refuse operators that are not in operators.txt and would run on the CPU."""
    _C.forbid_fallbacks(on)


def forbid_operators(*names):
    """Refuse these operators, such as "aten::cauchy_"; replaces what was refused before."""
    _C.forbid_operators(set(names))


def forbid_cuda(*roots):
    """Refuse calls of torch.cuda and autocast("cuda") from files below these folders.

    Without CUDA most of them silently do nothing, so that nobody sees what is missing on an NPU.
    """
    _guard_cuda()
    _cuda_roots[:] = [str(Path(root).resolve()) + os.sep for root in roots]


def configure_from_environment():
    """Obey NPU_SIM_FORBID, NPU_SIM_CUDA_ROOTS, NPU_SIM_MEMORY_GIB and NPU_SIM_STATS.

    Raises:
        ValueError: NPU_SIM_FORBID names something else than the RULES.
    """
    wanted = {name for name in os.environ.get("NPU_SIM_FORBID", "").split(",") if name}
    if not wanted <= set(RULES):
        raise ValueError(f"NPU_SIM_FORBID={','.join(sorted(wanted))} knows {', '.join(RULES)}.")
    _C.forbid_float64("float64" in wanted)
    _C.forbid_fallbacks("fallbacks" in wanted)
    _C.set_sync_mode(2 if "syncs" in wanted else 0)
    if "cuda" in wanted:
        forbid_cuda(*os.environ.get("NPU_SIM_CUDA_ROOTS", os.getcwd()).split(os.pathsep))
    if "NPU_SIM_MEMORY_GIB" in os.environ:
        limit = int(float(os.environ["NPU_SIM_MEMORY_GIB"]) * (1 << 30))
        for device in range(_C.device_count()):
            set_memory_limit(limit, device)
    if path := os.environ.get("NPU_SIM_STATS"):
        atexit.register(write_stats, path.replace("{rank}", os.environ.get("RANK", "0")))


def _remember_stack(cause):
    """Keep the stack of a sync; for the backward pass, which has its own thread, its caller's."""
    frames = traceback.extract_stack()[:-1]
    if threading.current_thread() is not threading.main_thread() and len(frames) < _FRAMES:
        caller = sys._current_frames().get(threading.main_thread().ident)
        frames = traceback.extract_stack(caller) + frames
    _sync_stacks[cause] = "".join(traceback.format_list(frames[-_FRAMES:]))


def _called_from_root(depth):
    path = sys._getframe(depth + 1).f_code.co_filename
    return any(path.startswith(root) for root in _cuda_roots)


@functools.cache
def _guard_cuda():
    for name in _CUDA_CALLS:
        _guard_cuda_call(name)
    _guard_autocast()


def _guard_cuda_call(name):
    original = getattr(torch.cuda, name)

    @functools.wraps(original)
    def guarded(*args, **settings):
        if _called_from_root(1):
            raise RuntimeError(
                f"torch.cuda.{name} was called with an NPU as accelerator. Use torch.accelerator."
            )
        return original(*args, **settings)

    setattr(torch.cuda, name, guarded)


def _guard_autocast():
    original = torch.autocast.__init__

    @functools.wraps(original)
    def guarded(self, device_type, *args, **settings):
        if device_type == "cuda" and _called_from_root(1):
            raise RuntimeError("autocast('cuda') does nothing on an NPU. Use the tensor's device.")
        original(self, device_type, *args, **settings)

    torch.autocast.__init__ = guarded


_C.on_first_sync(_remember_stack)
