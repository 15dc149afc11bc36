import pytest
import torch

from mllm_npu.errors import ConfigError
from mllm_npu.models.projector.attention_resampler import AttentionResampler


def make(**changes):
    return AttentionResampler(**{"input_dim": 24, "output_dim": 32, "num_queries": 16} | changes)


def test_any_square_of_tokens_becomes_the_number_of_queries():
    resampler = make()
    for num_tokens in (1, 16, 25):
        assert resampler(torch.randn(3, num_tokens, 24)).shape == (3, 16, 32)


def test_positions_are_saved_and_never_trained():
    resampler = make()
    assert "pos_embed" in resampler.state_dict()
    assert "pos_embed" not in dict(resampler.named_parameters())


def test_equal_widths_need_no_input_layer():
    assert "kv_proj.weight" not in make(input_dim=32).state_dict()
    assert "kv_proj.weight" in make().state_dict()


def test_the_feed_forward_is_there_only_when_asked_for():
    assert not any("feed_forward" in name for name in make().state_dict())
    larger = make(feed_forward_ratio=2)
    assert larger.feed_forward[1].out_features == 64
    larger(torch.randn(1, 16, 24)).sum().backward()
    assert all(parameter.grad is not None for parameter in larger.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_queries": 15}, "15"),
        ({"num_heads": 5}, "num_heads=5"),
        ({"output_dim": 30, "num_heads": 2}, "30"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_a_row_that_is_no_grid_is_refused():
    with pytest.raises(ConfigError, match="15"):
        make()(torch.randn(1, 15, 24))


def test_it_builds_without_memory():
    with torch.device("meta"):
        resampler = make()
        assert resampler(torch.randn(2, 25, 24)).is_meta


@pytest.mark.parametrize("num_heads", [0, -1, 5])
def test_heads_that_do_not_divide_the_width_are_refused(num_heads):
    with pytest.raises(ConfigError, match=f"num_heads={num_heads}"):
        AttentionResampler(input_dim=8, output_dim=8, num_queries=4, num_heads=num_heads)
