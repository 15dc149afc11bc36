import copy

import pytest
import torch
from torch import nn

from mllm_npu.inference import packed_linear
from mllm_npu.inference.packed_linear import pack_linear, unpack_linear


@pytest.fixture
def model():
    if not packed_linear._can_pack():
        pytest.skip("this processor has no such layout")
    return nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 128, bias=False))


@pytest.mark.parametrize("shape", [(1, 128), (8, 128), (2, 5, 128), (70, 128), (0, 128)])
def test_packed_layers_give_what_they_gave(model, shape):
    rows = torch.randn(shape)
    with torch.no_grad():
        before = model(rows)
        assert pack_linear(model) == 2
        torch.testing.assert_close(model(rows), before, atol=1e-5, rtol=1e-5)
        unpack_linear(model)
        assert torch.equal(model(rows), before)
    assert all(type(layer) in (nn.Linear, nn.ReLU) for layer in model)


def test_a_row_does_not_depend_on_the_rows_beside_it(model):
    pack_linear(model)
    rows = torch.randn(8, 128)
    with torch.inference_mode():
        together = model(rows)
        for place in range(8):
            torch.testing.assert_close(
                model(rows[place : place + 1])[0], together[place], atol=1e-6, rtol=1e-6
            )


def test_a_weight_that_was_changed_is_laid_out_again(model):
    pack_linear(model)
    rows = torch.randn(2, 128)
    with torch.no_grad():
        model(rows)
        model[2].weight.mul_(2)
        changed = model(rows)
        unpack_linear(model)
        torch.testing.assert_close(changed, model(rows), atol=1e-5, rtol=1e-5)


def test_training_and_other_numbers_go_the_plain_way(model):
    truth = copy.deepcopy(model)
    pack_linear(model)
    rows = torch.randn(3, 128, requires_grad=True)
    model(rows).sum().backward()
    truth(rows).sum().backward()
    assert torch.equal(model[0].weight.grad, truth[0].weight.grad)
    assert set(model.state_dict()) == set(truth.state_dict())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(rows), truth(rows))


def test_small_layers_and_others_stay_as_they_are(model):
    class Own(nn.Linear):
        pass

    others = nn.Sequential(nn.Linear(8, 8), Own(128, 128), nn.Linear(128, 128).bfloat16())
    assert pack_linear(others) == 0
    assert pack_linear(nn.Sequential(model, others)) == 2


def test_where_it_cannot_be_done_nothing_changes(model, monkeypatch):
    monkeypatch.setattr(packed_linear, "_can_pack", lambda: False)
    assert pack_linear(model) == 0
    assert type(model[0]) is nn.Linear
