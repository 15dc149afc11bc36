"""What the operation means; its ways are compared in test_every_way.py."""

import torch

from mllm_npu.ops.squared_relu import squared_relu


def test_what_is_below_zero_is_gone():
    assert squared_relu(torch.tensor([-3.0, 0.0, 2.0])).tolist() == [0, 0, 4]
