"""What every group shares: one thread, one seed, and the rules as they were."""

import pytest
import torch
import torch_npu


@pytest.fixture(autouse=True)
def as_at_first():
    """Begin each test with the same random state, without statistics and with the usual rules."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch_npu.simulation.stats(reset=True)
    yield
    torch.npu.set_sync_debug_mode("default")
    torch.npu.set_device(0)
    torch_npu.simulation.forbid_operators()
    torch_npu.simulation.configure_from_environment()
