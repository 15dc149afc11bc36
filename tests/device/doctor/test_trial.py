"""The model of the burn-in: it repeats itself, learns, and its FLOPs are counted right."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mllm_npu.device.doctor.trial import SIZES, STEPS_PER_ROUND, Size, Trial, exact_numbers

CPU = torch.device("cpu")
SMALL = Size(width=32, blocks=2, heads=2, sequences=2, tokens=16, classes=24)


def test_every_round_gives_the_same_losses_to_the_last_bit():
    trial = Trial(CPU, SMALL)
    first = trial.play_round()
    assert len(first) == STEPS_PER_ROUND
    assert all(trial.play_round() == first for _ in range(3))
    assert Trial(CPU, SMALL).play_round() == first


def test_the_steps_learn():
    losses = Trial(CPU, SMALL).play_round()
    assert losses[-1] < losses[0]


def test_a_value_that_flips_is_seen():
    trial = Trial(CPU, SMALL)
    first = trial.play_round()
    trial.start[0][0] += 1
    assert trial.play_round() != first


def test_flops_are_those_that_are_counted():
    trial = Trial(CPU, SMALL)
    with FlopCounterMode(display=False) as counter:
        trial.play_round()
    assert SMALL.step_flops() * STEPS_PER_ROUND == counter.get_total_flops()


@pytest.mark.parametrize("kind", SIZES)
def test_heads_divide_the_width(kind):
    assert SIZES[kind].width % SIZES[kind].heads == 0


def test_the_exact_mode_is_left_as_it_was_found():
    with exact_numbers():
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
