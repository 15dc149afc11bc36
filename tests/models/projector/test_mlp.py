import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.models.projector.mlp import MLPProjector


def test_depth_counts_linear_layers():
    for depth in (1, 3):
        projector = MLPProjector(input_dim=4, output_dim=8, num_queries=4, depth=depth)
        linears = [layer for layer in projector.mlp if isinstance(layer, torch.nn.Linear)]
        assert len(linears) == depth
        assert projector(torch.randn(2, 4, 4)).shape == (2, 4, 8)


def test_neighbours_in_the_picture_are_joined():
    projector = MLPProjector(input_dim=1, output_dim=8, num_queries=4, num_tokens=16)
    grid = torch.arange(16.0).view(1, 16, 1)
    assert projector._join(grid)[0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]
    assert projector(grid).shape == (1, 4, 8)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_queries": 9, "num_tokens": 16}, "num_tokens=16"),
        ({"num_queries": 5, "num_tokens": 16}, "got 5"),
        ({"num_queries": 4, "depth": 0}, "depth"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ConfigError, match=message):
        MLPProjector(input_dim=4, output_dim=8, **sizes)


def test_a_released_projector_has_two_layers_and_nothing_else():
    projector = MLPProjector(input_dim=4, output_dim=8, num_queries=4, norm=False)
    assert set(projector.state_dict()) == {
        "mlp.0.weight",
        "mlp.0.bias",
        "mlp.2.weight",
        "mlp.2.bias",
    }
    features = torch.randn(2, 4, 4)
    hidden = torch.nn.functional.gelu(projector.mlp[0](features))
    torch.testing.assert_close(projector(features), projector.mlp[2](hidden))


def test_biases_and_activations_are_chosen():
    projector = MLPProjector(
        input_dim=4, output_dim=8, num_queries=4, norm=False, bias=False, activation="relu"
    )
    assert set(projector.state_dict()) == {"mlp.0.weight", "mlp.2.weight"}
    assert torch.equal(projector.mlp[1](torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))
    with pytest.raises(ConfigError, match=r"activation='gelluu'.*gelu"):
        MLPProjector(input_dim=4, output_dim=8, num_queries=4, activation="gelluu")
