"""What every probe has in common."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.probe import Measured, Probe


class Nothing(Probe):
    def measure(self, placed):
        return Measured(values={})


def test_a_probe_knows_how_often_it_measures():
    assert Nothing(every=7).every == 7


@pytest.mark.parametrize("every", [0, -1])
def test_a_probe_that_never_measures_is_refused(every):
    with pytest.raises(ConfigError, match=f"every={every} updates"):
        Nothing(every=every)


def test_a_probe_that_does_not_say_how_it_measures_cannot_be_made():
    class Empty(Probe):
        pass

    with pytest.raises(TypeError, match="measure"):
        Empty(every=1)


def test_what_was_measured_stays_and_has_no_pictures_of_others():
    first, second = Measured(values={"loss": 1.0}), Measured(values={})
    with pytest.raises(FrozenInstanceError):
        first.values = {}
    first.pictures["grid"] = torch.zeros(3, 1, 1, dtype=torch.uint8)
    assert second.pictures == {}
