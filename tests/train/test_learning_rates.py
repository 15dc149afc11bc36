import pytest

from mllm_npu.config import load_config, plain
from mllm_npu.errors import ConfigError
from mllm_npu.models.lora import LoraRecipe
from mllm_npu.models.tiny import VISION_CONFIGS, tiny_mllm, tiny_vision_encoder
from mllm_npu.models.vision_encoder.qwen_vit import QwenVisionEncoder
from mllm_npu.train.learning_rates import layer_factors, peak_rates

NAMES = ["encoder.weight", "encoder.bias", "head.weight"]
NOTHING = {"learning_rates": {}, "lr_multipliers": {}, "layer_decay": {}}


def rates(**given):
    return peak_rates(NAMES, **(NOTHING | {"lr": 1.0} | given))


def test_without_patterns_all_have_one_rate():
    assert set(rates(lr=0.5).values()) == {0.5}


def test_a_rate_of_its_own_takes_the_place_of_the_common_one():
    found = rates(learning_rates={"encoder.*": 1e-5, "*.bias": 1e-3})
    assert found == {"encoder.weight": 1e-5, "encoder.bias": 1e-3, "head.weight": 1.0}


def test_factors_and_layers_multiply_whatever_rate_there_is():
    names = ["a.0.weight", "a.1.weight", "b.weight"]
    found = peak_rates(
        names,
        lr=1.0,
        learning_rates={"a.*": 0.1},
        lr_multipliers={"*": 2.0, "b.*": 3.0},
        layer_decay={"a.*": 0.5},
    )
    expected = {"a.0.weight": 0.1 * 2 * 0.25, "a.1.weight": 0.1 * 2 * 0.5, "b.weight": 3.0}
    assert found == pytest.approx(expected)


def blocks_of(names, decay=0.5):
    """Names that share a factor, from the lowest one up, each with its factor."""
    factors = layer_factors(names, "*", decay)
    return {
        factor: {name for name in names if factors[name] == factor}
        for factor in sorted(factors.values())
    }


@pytest.mark.parametrize("family", VISION_CONFIGS)
def test_every_encoder_falls_from_its_end_to_its_input(family):
    names = [name for name, _ in tiny_vision_encoder(family).named_parameters()]
    low, block, top = blocks_of(names).items()
    assert (low[0], block[0], top[0]) == (0.25, 0.5, 1.0)
    assert any("patch_embed" in name for name in low[1])
    assert any("position" in name for name in low[1])
    assert all(".0." in name for name in block[1])
    assert all("norm" in name for name in top[1]), top
    assert not any("pre" in name for name in top[1])


def test_the_encoder_of_qwen_falls_too():
    encoder = QwenVisionEncoder(
        tile_size=28, hidden_width=32, num_layers=3, num_heads=4, width=128, num_tokens=16
    )
    low, *blocks, top = blocks_of([name for name, _ in encoder.named_parameters()]).items()
    assert low == (
        0.0625,
        {"conv1.weight", "positional_embedding", "ln_pre.weight", "ln_pre.bias"},
    )
    assert [factor for factor, _ in blocks] == [0.125, 0.25, 0.5]
    assert {name.split(".")[0] for name in top[1]} == {"attn_pool", "ln_post", "proj"}


def test_blocks_are_found_inside_a_model_and_under_updates():
    model = tiny_mllm()
    LoraRecipe(rank=1, alpha=1.0, dropout=0.0, targets=["*.q_proj"]).apply(model.language_model)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    factors = layer_factors(trained, "language_model.*", 0.9)
    assert len(factors) == 4
    assert {factors[n] for n in factors if ".layers.0." in n} == {0.9**2}
    assert {factors[n] for n in factors if ".layers.1." in n} == {0.9}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rates": {"encoder.*": -1.0}}, r"learning_rates of 'encoder\.\*' is -1\.0"),
        ({"lr_multipliers": {"*": float("nan")}}, r"lr_multipliers of '\*' is nan"),
        ({"layer_decay": {"*": 0.0}}, "above 0 and at most 1"),
        ({"layer_decay": {"*": 1.5}}, "above 0 and at most 1"),
        ({"layer_decay": {"encoder.*": 0.9}}, "none lies in a numbered block"),
        ({"learning_rates": {"decoder.*": 1.0}}, "learning_rates: the pattern 'decoder"),
        ({"lr_multipliers": {"decoder.*": 1.0}}, "lr_multipliers: the pattern 'decoder"),
        ({"layer_decay": {"decoder.*": 0.9}}, "layer_decay: the pattern 'decoder"),
    ],
)
def test_what_makes_no_sense_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        rates(**given)


def test_patterns_can_be_typed():
    typed = [
        "+train.optimizer.learning_rates={projector.*: 1e-3}",
        "+train.optimizer.layer_decay={vision_encoder.*: 0.9}",
    ]
    optimizer = plain(load_config("training", typed))["train"]["optimizer"]
    assert optimizer["learning_rates"] == {"projector.*": 1e-3}
    assert optimizer["layer_decay"] == {"vision_encoder.*": 0.9}
