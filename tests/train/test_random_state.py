import random

import numpy as np
import pytest
import torch

from mllm_npu.errors import CheckpointError
from mllm_npu.train.random_state import random_tensors, restore_random, seed_pack

HOST = torch.device("cpu")


def draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), torch.rand(2).tolist()


def test_every_generator_goes_on_where_it_was():
    random.gauss(0, 1)
    np.random.standard_normal()
    tensors = {name: tensor.clone() for name, tensor in random_tensors(HOST).items()}
    expected = draw(), np.random.standard_normal()
    assert (draw(), np.random.standard_normal()) != expected
    restore_random(tensors, HOST)
    assert (draw(), np.random.standard_normal()) == expected


def test_states_are_bytes_that_a_checkpoint_can_hold():
    tensors = random_tensors(HOST)
    assert set(tensors) == {"host", "python", "numpy"}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.uint8}


@pytest.mark.parametrize("name", ["python", "numpy", "host"])
@pytest.mark.parametrize("harm", ["lacking", "cut", "rubbish"])
def test_a_damaged_state_is_refused(name, harm):
    tensors = random_tensors(HOST)
    if harm == "lacking":
        del tensors[name]
    else:
        broken = tensors[name][:-9] if harm == "cut" else torch.zeros_like(tensors[name])
        tensors[name] = broken
    before = torch.get_rng_state()
    try:
        with pytest.raises(CheckpointError, match="random states"):
            restore_random(tensors, HOST)
    finally:
        torch.set_rng_state(before)


def test_a_device_of_another_kind_keeps_its_own():
    tensors = random_tensors(HOST) | {"npu": torch.zeros(3, dtype=torch.uint8)}
    restore_random(tensors, HOST)


def drawn(seed, number):
    seed_pack(seed, number)
    return torch.rand(4)


def test_what_a_pack_draws_follows_from_seed_and_number():
    first = drawn(3, 7)
    torch.rand(100)
    assert torch.equal(drawn(3, 7), first)


def test_packs_and_seeds_near_each_other_draw_something_else():
    seen = {tuple(drawn(seed, number).tolist()) for seed in range(30) for number in range(30)}
    assert len(seen) == 900
    assert torch.equal(drawn(0, 2**40), drawn(0, 2**40))
    assert torch.stack([drawn(0, n) for n in range(500)]).mean().item() == pytest.approx(
        0.5, abs=0.03
    )
