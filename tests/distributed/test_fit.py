import pytest
import torch
from torch import nn

from mllm_npu.distributed.checkpoint_files import StoredShape
from mllm_npu.distributed.fit import check_fit, named_tensors
from mllm_npu.errors import CheckpointError


def make_tied():
    module = nn.ModuleDict({"embed": nn.Embedding(4, 3), "head": nn.Linear(3, 4, bias=False)})
    module["head"].weight = module["embed"].weight
    module.register_buffer("mean", torch.zeros(3))
    module.register_buffer("computed", torch.zeros(3), persistent=False)
    return module


def test_what_is_tied_stands_under_its_first_name_and_what_is_computed_not_at_all():
    module = make_tied()
    found = named_tensors(module)
    assert list(found) == ["mean", "embed.weight"]
    assert found["embed.weight"] is module["embed"].weight
    assert found["mean"] is module.mean


def test_equal_names_and_shapes_fit():
    module = make_tied()
    stored = {
        name: StoredShape(shape=tensor.shape, dtype=torch.bfloat16)
        for name, tensor in named_tensors(module).items()
    }
    check_fit("the model", expected=named_tensors(module), found=stored)
    check_fit("nothing", expected={}, found={})


def test_every_kind_of_difference_is_named():
    expected = dict(nn.Linear(2, 2).named_parameters())
    found = {"weight": torch.zeros(2, 5), "scale": torch.ones(1)}
    with pytest.raises(CheckpointError) as error:
        check_fit("the model", expected=expected, found=found)
    message = str(error.value)
    assert message.startswith("The checkpoint does not fit the model of this run.")
    assert "missing in the checkpoint: bias" in message
    assert "only in the checkpoint: scale" in message
    assert "of another shape: weight [2, 5] instead of [2, 2]" in message


def test_long_lists_are_cut():
    found = {f"layer.{number}": torch.ones(1) for number in range(9)}
    with pytest.raises(CheckpointError, match=r"layer\.3 and 5 more"):
        check_fit("the model", expected={}, found=found)
