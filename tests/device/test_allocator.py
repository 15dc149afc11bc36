"""What the allocators of devices take for a tensor."""

import pytest

from mllm_npu.device.allocator import Blocks, blocks_of


@pytest.mark.parametrize(
    ("device", "size", "taken"),
    [
        ("npu", 480, 512),
        ("npu", 481, 1024),
        ("cuda", 512, 512),
        ("cuda", 513, 1024),
        ("cpu", 513, 513),
        ("xpu", 1, 512),
    ],
)
def test_a_request_is_rounded_as_the_device_rounds(device, size, taken):
    assert blocks_of(device).take(size) == taken


def test_nothing_takes_nothing():
    assert Blocks(grain=512, tail=32).take(0) == 0


def test_libraries_of_some_devices_keep_memory():
    assert blocks_of("cuda").workspace > 64 << 20
    assert blocks_of("npu").workspace == 0
