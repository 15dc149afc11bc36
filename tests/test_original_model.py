"""A model file of the original becomes values that build the same model here."""

import copy

import pytest
import torch

from mllm_npu.build import build_part
from mllm_npu.errors import ConfigError
from mllm_npu.models.image_decoder.sdxl_edit import SDXLEditImageDecoder
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.mllm import SEED
from mllm_npu.original_model import translate_original

RESAMPLER = "mllm_npu.models.multimodal_projector.attention_resampler.AttentionResampler"
SEEDX = {
    "mllm": {
        "mllm_model": {
            "_target_": "mllm_npu.models.mllm.SEED.from_pretrained",
            "freeze_vision_encoder": True,
            "vision_encoder": {
                "_target_": "mllm_npu.models.multimodal_encoder.qwenvl_vit."
                "VisionTransformerWithAttnPool.from_pretrained",
                "heads": 4,
                "image_size": 56,
                'image_start_id"': 1,
                "layers": 1,
                "mlp_ratio": 2.0,
                "output_dim": 128,
                "patch_size": 14,
                "width": 32,
                "n_queries": 64,
                "pretrained_model_name_or_path": "pretrained/qwen_vit_G.pt",
            },
            "projector": {
                "_target_": RESAMPLER,
                "grid_size": 4,
                "embed_dim": 64,
                "num_heads": 4,
                "kv_dim": 128,
            },
            "output_projector": {
                "_target_": RESAMPLER,
                "grid_size": 4,
                "embed_dim": 128,
                "num_heads": 4,
                "kv_dim": 64,
            },
            "vocab_size": 741,
            "lm_loss_scale": 1.0,
            "rec_loss_scale": 3.0,
            "add_patch_pos": True,
            "vit_down": True,
            "mse": True,
            "pretrained_model_path": "pretrained/pytorch_model.bin",
        },
        "language_model": {
            "_target_": "mllm_npu.models.language_models.peft_models."
            "get_peft_model_with_resize_embedding",
            "peft_config": {
                "_target_": "peft.LoraConfig",
                "_convert_": "object",
                "r": 4,
                "lora_alpha": 8,
                "modules_to_save": ["norm"],
                "target_modules": ["q_proj", "v_proj"],
                "task_type": "CAUSAL_LM",
                "lora_dropout": 0.05,
            },
            "model": {
                "_target_": "mllm_npu.models.language_models.llama2.LlamaForCausalLM."
                "from_pretrained",
                "pretrained_model_name_or_path": "pretrained/llama2",
            },
        },
        "tokenizer": {
            "_target_": "transformers.LlamaTokenizer.from_pretrained",
            "pretrained_model_name_or_path": "pretrained/tokenizer",
        },
        "processor": {"_target_": "mllm_npu.data.processor.init_processor"},
    }
}
ADAPTER = {
    "_target_": "mllm_npu.models.generation.adapter_modules."
    "SDXLAdapterWithLatentImage.from_pretrained",
    "resampler": {
        "_target_": "mllm_npu.models.generation.resampler.ResamplerXLV2",
        "dim": 1024,
        "depth": 4,
        "dim_head": 64,
        "heads": 16,
        "num_queries": 64,
        "embedding_dim": 4096,
        "output1_dim": 768,
        "output2_dim": 1280,
        "ff_mult": 4,
        "normalize": False,
    },
    "vit_down": True,
    "pretrained_model_path": "pretrained/detokenizer/pytorch_model.bin",
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 731,
}


@pytest.fixture
def seedx():
    return copy.deepcopy(SEEDX)


def test_a_whole_model_builds(seedx):
    found = translate_original(seedx)
    language = found["models"]["language_model"]
    assert (language.pop("path"), language["vocab_size"]) == ("pretrained/llama2", 741)
    language["config"] = LLAMA
    with torch.device("meta"):
        model = build_part(found["models"])
    assert isinstance(model, SEED)
    assert isinstance(model.language_model, HuggingFaceLanguageModel)
    assert (model.language_model.vocab_size, model.image_weight) == (741, 3.0)
    assert (model.projector.num_queries, model.output_projector.num_queries) == (16, 16)
    assert (model.drawn_features.pooling, model.drawn_features.normalize) == ("sequence", False)
    assert model.patch_pos_embed is not None
    assert model.vision_encoder.tile_size == 56
    recipe = build_part(found["lora"])
    assert (recipe.rank, recipe.alpha, recipe.targets) == (4, 8.0, ("*.q_proj", "*.v_proj"))
    assert found["initialise_from"] == [
        "pretrained/llama2",
        "pretrained/qwen_vit_G.pt",
        "pretrained/pytorch_model.bin",
    ]
    assert found["tokenizer"]["path"] == "pretrained/tokenizer"
    trainable = found["objective"]["trainable"]
    assert "language_model.*lora_*" in trainable
    assert not any("vision_encoder" in pattern for pattern in trainable)


def test_a_reading_model(seedx):
    model = seedx["mllm"]["mllm_model"]
    model["_target_"] = "mllm_npu.models.mllm.GeneraliazedMultimodalModels.from_pretrained"
    for key in ("output_projector", "rec_loss_scale", "pretrained_model_path", "vocab_size"):
        del model[key]
    model["vision_encoder"] = {
        "_target_": "mllm_npu.models.multimodal_encoder.siglip_vit."
        "SigLIPVisionEncoder.from_pretrained",
        "hidden_dim": 1152,
        "output_dim": 4096,
        "pretrained_model_name_or_path": "google/siglip",
    }
    del seedx["mllm"]["language_model"]["peft_config"]
    found = translate_original(seedx)
    assert "output_projector" not in found["models"]
    assert found["models"]["vision_encoder"]["path"] == "google/siglip"
    assert "initialise_from" not in found
    assert "lora" not in found
    assert found["objective"]["trainable"] == ["*", "!vision_encoder.*"]


def test_an_adapter_builds():
    found = translate_original(copy.deepcopy(ADAPTER))
    with torch.device("meta"):
        decoder = build_part(found["models"]["image_decoder"])
    assert isinstance(decoder, SDXLEditImageDecoder)
    assert (decoder.width, decoder.num_tokens) == (4096, 64)
    assert found["initialise_from"] == ["pretrained/detokenizer/pytorch_model.bin"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid_size": None}, "mllm.mllm_model.projector.grid_size"),
        ({"_target_": "mllm_npu.models.multimodal_projector.pooling_projection.SimplePooling"},
         "cannot be translated: mllm_npu.models.projector.average_pool"),
        ({"odd": 1}, "mllm.mllm_model.projector.odd is not a key"),
    ],
)  # fmt: skip
def test_what_cannot_be_translated_is_named(seedx, change, message):
    projector = seedx["mllm"]["mllm_model"]["projector"]
    projector.update(change)
    if projector["grid_size"] is None:
        del projector["grid_size"]
    with pytest.raises(ConfigError, match=message):
        translate_original(seedx)


def test_a_pipeline_of_data_is_explained():
    values = {"_target_": "mllm_npu.data.datapipes.build_multi_datapipes", "datapipes": []}
    with pytest.raises(ConfigError, match=r"neither a model .* is mllm_npu.data.loader"):
        translate_original(values)
    with pytest.raises(ConfigError, match="holds no name of the original"):
        translate_original({"a": 1})
