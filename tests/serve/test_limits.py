"""Limits are above 0."""

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.serve.limits import Limits


def test_the_defaults_fit():
    limits = Limits()
    assert limits.max_body_bytes == 32 * 2**20
    assert limits.max_pixels == 4096 * 4096


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_nothing_can_be_forbidden_by_a_limit_of_nothing(value):
    with pytest.raises(ConfigError, match="max_images"):
        Limits(max_images=value)
