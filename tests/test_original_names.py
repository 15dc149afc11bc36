"""What someone's file for the original holds is named, with what takes its place."""

import pytest

from mllm_npu.arguments import argument_names
from mllm_npu.config import load_config
from mllm_npu.errors import ConfigError
from mllm_npu.original_names import TARGETS, explain_original, is_original, short_name

PROJECTORS = "mllm_npu.models.multimodal_projector"


def test_every_replacement_exists():
    for target in TARGETS.values():
        if "." in target.split(" ")[0]:
            assert isinstance(argument_names(target, "x"), list)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (
            {"a": {"_target_": "mllm_npu.models.mllm.SEED.from_pretrained"}},
            ["a._target_", "mllm_npu.models.mllm.SEED"],
        ),
        ({"pretrained_model_path": "x"}, ["pretrained_model_path is initialise_from"]),
        (
            {"p": {"_target_": f"{PROJECTORS}.x.AttentionResampler", "grid_size": 8}},
            ["p.grid_size is num_queries, which is its square"],
        ),
        ({"list": [{"vit_down": True}]}, ["list[0].vit_down is drawn_features.pooling"]),
        ({"x": {"_target_": "src.models.mllm.seed_x.Nothing"}}, ["known here by no one name"]),
    ],
)  # fmt: skip
def test_names_of_the_original_are_explained(values, names):
    said = explain_original(values)
    for name in names:
        assert name in said


def test_many_names_are_counted():
    many = {f"part{number}": {"kv_dim": 1} for number in range(9)}
    assert "and 3 more names" in explain_original(many)


def test_our_own_names_are_not_taken_for_the_originals():
    assert explain_original({"_target_": "mllm_npu.models.mllm.SEED", "num_heads": 4}) is None
    assert not is_original("mllm_npu.models.projector.attention_resampler.AttentionResampler")
    assert is_original("peft.LoraConfig")
    assert not is_original("peft.Something")
    assert not is_original(None)
    assert short_name("a.b.Name.from_pretrained") == "Name"


def test_composing_a_file_of_the_original_says_what_to_do():
    with pytest.raises(ConfigError, match=r"add_patch_pos is patch_positions.*--from-original"):
        load_config("training", ["+models.add_patch_pos=true"])
