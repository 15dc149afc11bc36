"""The module `torch.npu`: devices, streams, memory and random state of the simulated NPU."""

import contextlib
import os
from types import SimpleNamespace

import torch

from torch_npu import _C

CAPACITY = 64 << 30
_SYNC_MODES = {"default": 0, "warn": 1, "error": 2}

config = SimpleNamespace(allow_internal_format=False)


def index_of(device=None):
    """Number of a device given as nothing, a number, a name or a torch.device."""
    if device is None:
        return _C.current_device()
    if isinstance(device, int):
        return device if device >= 0 else _C.current_device()
    index = torch.device(device).index
    return _C.current_device() if index is None else index


# Devices.


def is_available():
    """Whether there is a device."""
    return _C.device_count() > 0


def is_initialized():
    """Whether the device is ready; it always is."""
    return True


def init():
    """Get the device ready; nothing is to be done."""


_lazy_init = init
_initialized = True  # recomputation asks for it before it keeps random states


def _is_in_bad_fork():
    return False


def device_count():
    """How many $ASCEND_RT_VISIBLE_DEVICES shows of $NPU_SIM_DEVICES, 8 without it."""
    return _C.device_count()


def current_device():
    """Number of the thread's device."""
    return _C.current_device()


def set_device(device):
    """Choose the thread's device."""
    _C.set_device(index_of(device))


class device(contextlib.ContextDecorator):  # noqa: N801 - the real name
    """Choose the thread's device for a while."""

    def __init__(self, device):
        self.index = index_of(device)

    def __enter__(self):
        self.previous = _C.current_device()
        _C.set_device(self.index)

    def __exit__(self, *error):
        _C.set_device(self.previous)


def get_device_name(device=None):
    """What the chip is called."""
    return os.environ.get("NPU_SIM_SOC", "Ascend910B3")


def get_device_properties(device=None):
    """What the chip has."""
    return SimpleNamespace(
        name=get_device_name(), total_memory=CAPACITY, cube_core_num=20, vector_core_num=40
    )


def get_device_capability(device=None):
    """None, as on the real device: there is no (major, minor) to index."""


def set_compile_mode(jit_compile=False):
    """Choose how operators are compiled; nothing is here."""


def set_option(option):
    """Set options of the runtime; there are none here."""


def is_bf16_supported():
    """Whether bfloat16 is computed."""
    return True


def get_amp_supported_dtype():
    """The dtypes of autocast."""
    return [torch.float16, torch.bfloat16, torch.float32]


# Streams and synchronisation.


class Stream(torch.Stream):
    """A queue of work; everything in it has already run."""

    def __new__(cls, device=None, priority=0):
        return super().__new__(cls, torch.device("npu", index_of(device)), priority=priority)


class Event(torch.Event):
    """A point in a queue; it has always been passed."""

    def __new__(cls, enable_timing=False, blocking=False, interprocess=False):
        return super().__new__(cls, "npu", enable_timing=enable_timing)


def current_stream(device=None):
    """The stream that work is put into."""
    return torch.accelerator.current_stream(torch.device("npu", index_of(device)))


def default_stream(device=None):
    """The stream every device begins with."""
    kind = torch._C._autograd.DeviceType.PrivateUse1
    return torch.Stream(stream_id=0, device_index=index_of(device), device_type=kind.value)


def set_stream(stream):
    """Put work into this stream from now on."""
    torch.accelerator.set_stream(stream)


@contextlib.contextmanager
def stream(stream):
    """Put work into this stream for a while; None changes nothing."""
    with stream if stream is not None else contextlib.nullcontext():
        yield


def synchronize(device=None):
    """Wait until the device is idle."""
    torch.accelerator.synchronize(torch.device("npu", index_of(device)))


def set_sync_debug_mode(mode):
    """Choose what a wait of the host does: "default" nothing, "warn", "error"; or 0, 1, 2."""
    number = _SYNC_MODES.get(mode, mode)
    if number not in _SYNC_MODES.values():
        raise RuntimeError(f"invalid value of debug_mode {mode!r}: default, warn or error")
    _C.set_sync_mode(number)


def get_sync_debug_mode():
    """Number of the mode."""
    return _C.sync_mode()


# Memory.


def empty_cache():
    """Give back what is cached; nothing is."""


def ipc_collect():
    """Give back what other processes no longer use; nothing is shared."""


def memory_stats(device=None):
    """The allocator's figures, as torch.accelerator names them."""
    return torch.accelerator.memory_stats(index_of(device))


def memory_allocated(device=None):
    """Bytes that tensors hold."""
    return torch.accelerator.memory_allocated(index_of(device))


def max_memory_allocated(device=None):
    """Most bytes that tensors have held."""
    return torch.accelerator.max_memory_allocated(index_of(device))


memory_reserved = memory_allocated
max_memory_reserved = max_memory_allocated


def reset_peak_memory_stats(device=None):
    """Forget the most so far."""
    torch.accelerator.reset_peak_memory_stats(index_of(device))


reset_max_memory_allocated = reset_peak_memory_stats


def mem_get_info(device=None):
    """Free and total bytes."""
    return torch.accelerator.get_memory_info(index_of(device))


# Random state.

default_generators = tuple(_C.default_generator(index) for index in range(_C.device_count()))


def manual_seed(seed):
    """Seed the current device."""
    default_generators[_C.current_device()].manual_seed(int(seed))


def manual_seed_all(seed):
    """Seed every device."""
    for generator in default_generators:
        generator.manual_seed(int(seed))


def seed():
    """Seed the current device at random."""
    default_generators[_C.current_device()].seed()


def seed_all():
    """Seed every device at random, all alike."""
    manual_seed_all(default_generators[0].seed())


def initial_seed():
    """The current device's seed."""
    return default_generators[_C.current_device()].initial_seed()


def get_rng_state(device="npu"):
    """16 bytes: seed and offset."""
    return default_generators[index_of(device)].get_state()


def set_rng_state(state, device="npu"):
    """Go on from a state."""
    default_generators[index_of(device)].set_state(state)


def get_rng_state_all():
    """The states of all devices."""
    return [generator.get_state() for generator in default_generators]


def set_rng_state_all(states):
    """Go on from the states of all devices."""
    for generator, state in zip(default_generators, states, strict=True):
        generator.set_state(state)


# Mixed precision.


class amp:  # noqa: N801 - a module in the real package
    """The older names of mixed precision."""

    @staticmethod
    def autocast(*args, **settings):
        """torch.autocast for this device."""
        return torch.autocast("npu", *args, **settings)

    @staticmethod
    def GradScaler(*args, **settings):  # noqa: N802 - the real name
        """torch.amp.GradScaler for this device."""
        return torch.amp.GradScaler("npu", *args, **settings)
