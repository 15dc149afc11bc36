import json
import random

import numpy as np
import pytest
import torch

from mllm_npu.errors import CheckpointError
from mllm_npu.train.random_state import random_tensors, random_values, restore_random

HOST = torch.device("cpu")


def draw():
    return random.random(), random.gauss(0, 1), np.random.rand(), torch.rand(2).tolist()


def test_every_generator_goes_on_where_it_was():
    random.gauss(0, 1)
    values = json.loads(json.dumps(random_values()))
    tensors = random_tensors(HOST)
    expected = draw()
    assert draw() != expected
    restore_random(values, tensors, HOST)
    assert draw() == expected


def test_a_damaged_state_is_refused():
    values = {**random_values(), "python": [3, [1, 2], None]}
    with pytest.raises(CheckpointError, match="random states"):
        restore_random(values, random_tensors(HOST), HOST)
