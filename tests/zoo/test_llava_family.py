"""A config.json becomes values of ours; what cannot be computed here is refused by name."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from mllm_npu.build import build_model
from mllm_npu.errors import ConfigError
from mllm_npu.zoo.hub_folder import HubFolder, open_hub_folder
from mllm_npu.zoo.llava_family import read_family, require_family


@pytest.fixture
def changed(hub_models, tmp_path):
    """A folder of a kind whose config.json has other values."""

    def make(name="llava with llama", **values):
        given = hub_models(name).folder
        for file in given.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        config = json.loads((tmp_path / "config.json").read_text())
        for path, value in values.items():
            node, (*parts, last) = config, path.split("__")
            for part in parts:
                node = node[part]
            node[last] = value
        (tmp_path / "config.json").write_text(json.dumps(config))
        return open_hub_folder(tmp_path)

    return make


def test_everything_a_model_is(changed):
    values = read_family(changed())
    models = values.models
    assert models["vision_encoder"]["layer"] == -2
    assert models["vision_encoder"]["dtype"] == "float32"
    assert models["projector"]["input_dim"] == 24
    assert models["projector"]["output_dim"] == 32
    assert models["projector"]["num_queries"] == values.num_read_tokens == 49
    assert models["projector"]["norm"] is False
    assert models["newline"] is False
    assert models["language_model"]["config"]["model_type"] == "llama"
    assert "transformers_version" not in models["language_model"]["config"]
    assert values.max_tokens == 16384


@pytest.mark.parametrize(("layer", "expected"), [(-1, -1), (3, -1), (2, -2), (1, -3), (-3, -3)])
def test_layers_are_counted_from_the_end(changed, layer, expected):
    values = read_family(changed(vision_feature_layer=layer))
    assert values.models["vision_encoder"]["layer"] == expected
    assert values.models["vision_encoder"]["final_norm"] is False


def test_a_head_is_a_table_where_the_whole_model_says_so(changed):
    told = changed(tie_word_embeddings=True)
    assert read_family(told).models["language_model"]["config"]["tie_word_embeddings"] is True


def test_older_files_say_their_type_in_another_key(changed):
    older = changed(torch_dtype="float16", dtype=None)
    assert read_family(older).models["language_model"]["dtype"] == "float16"
    assert read_family(older, dtype="bfloat16").models["language_model"]["dtype"] == "bfloat16"
    with pytest.raises(ConfigError, match="dtype=int8"):
        read_family(older, dtype="int8")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vision_feature_select_strategy": "full"}, "clip_vision_model with .*=full"),
        ({"vision_feature_layer": [-2, -1]}, r"vision_feature_layer=\[-2, -1\]"),
        ({"vision_feature_layer": 0}, "vision_feature_layer=0"),
        ({"vision_feature_layer": -9}, "vision_feature_layer=-9"),
        ({"vision_config__model_type": "nothing"}, "cannot be used"),
        ({"text_config__hidden_size": "wide"}, "cannot be used"),
        ({"text_config__model_type": "siglip_vision_model"}, "no causal language model"),
    ],
)
def test_what_cannot_be_computed_is_refused(changed, values, message):
    with pytest.raises(ConfigError, match=message):
        read_family(changed(**values))


@pytest.mark.parametrize(
    ("family", "hint"), [("qwen2_vl", ""), ("llava_nxt", "mean llava_next"), (None, "'None'")]
)
def test_an_unknown_family_is_told_those_that_are_known(changed, family, hint):
    with pytest.raises(ConfigError, match="Known are llava, llava_next, llava_onevision") as error:
        require_family(changed(model_type=family))
    assert hint in str(error.value)


CLIP = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
RELEASED = {
    "llava": {
        "architectures": ["LlavaForConditionalGeneration"],
        "ignore_index": -100,
        "image_token_index": 32000,
        "pad_token_id": 32001,
        "text_config": {
            "_name_or_path": "lmsys/vicuna-7b-v1.5",
            "max_position_embeddings": 4096,
            "model_type": "llama",
            "rms_norm_eps": 1e-05,
            "torch_dtype": "float16",
            "vocab_size": 32064,
        },
        "torch_dtype": "float16",
        "vision_config": CLIP,
        "vocab_size": 32064,
    },
    "llava_next": {
        "image_grid_pinpoints": [[336, 672], [672, 336]],
        "text_config": {
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "model_type": "mistral",
            "num_key_value_heads": 8,
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "vocab_size": 32064,
        },
        "torch_dtype": "float16",
        "use_image_newline_parameter": True,
        "vision_config": CLIP,
    },
    "llava_onevision": {
        "image_grid_pinpoints": [[384, 384], [384, 768]],
        "text_config": {
            "hidden_size": 896,
            "max_window_layers": 24,
            "model_type": "qwen2",
            "num_attention_heads": 14,
            "num_hidden_layers": 24,
            "num_key_value_heads": 2,
            "rope_theta": 1000000.0,
            "tie_word_embeddings": True,
            "vocab_size": 152000,
        },
        "torch_dtype": "bfloat16",
        "vision_aspect_ratio": "anyres_max_9",
        "vision_config": {
            "hidden_size": 1152,
            "image_size": 384,
            "intermediate_size": 4304,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 26,
            "patch_size": 14,
            "vision_use_head": False,
        },
    },
}
"""What older files look like: keys that no class declares, types under another name."""


@pytest.mark.parametrize("family", RELEASED)
def test_files_in_the_way_of_the_releases_are_read_and_built(family, tmp_path):
    config = {"model_type": family, **RELEASED[family]}
    edge = config["vision_config"]["image_size"]
    square = {"height": edge, "width": edge}
    rules = {"crop_size": square, "size": {"shortest_edge": edge}}
    if family != "llava":
        rules["image_grid_pinpoints"] = config["image_grid_pinpoints"]
    if family == "llava_onevision":
        rules |= {"size": square, "crop_size": None, "do_center_crop": None}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(rules))
    values = read_family(HubFolder(path=tmp_path, config=config, shards=()))
    with torch.device("meta"):
        model = build_model(OmegaConf.create({"models": values.models, "lora": None}))
    assert model.vision_encoder.num_tokens == values.num_read_tokens == (edge // 14) ** 2
    assert model.language_model.vocab_size == config["text_config"]["vocab_size"]
    assert values.models["language_model"]["dtype"] == config["torch_dtype"]
    rope = model.language_model.causal_lm.config.rope_parameters
    assert rope["rope_theta"] == config["text_config"].get("rope_theta", 10000.0)
    head = model.language_model.causal_lm.get_output_embeddings().weight
    table = model.language_model.causal_lm.get_input_embeddings().weight
    assert (head is table) == config["text_config"].get("tie_word_embeddings", False)
