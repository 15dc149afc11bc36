"""Released names find their slots: every key of every published layout, at published sizes."""

import json
import math

import pytest
import torch
from torch import nn

from mllm_npu.models.image_decoder.resampler import ResamplerXLV2
from mllm_npu.models.image_decoder.sdxl import SDXLImageDecoder
from mllm_npu.models.image_decoder.sdxl_edit import SDXLEditImageDecoder
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.projector.attention_resampler import AttentionResampler
from mllm_npu.models.vision_encoder.huggingface import HuggingFaceVisionEncoder
from mllm_npu.models.vision_encoder.qwen_vit import QwenVisionEncoder
from mllm_npu.models.weight_layouts import Place, examples, translate

LLAMA2 = {
    "model_type": "llama",
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "vocab_size": 32330,
}
LLAMA3 = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128587,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}


class Parts(nn.Module):
    """Parts under the names of a composed model."""

    def __init__(self, width, **parts):
        super().__init__()
        if width:
            self.patch_pos_embed = nn.Parameter(torch.empty(4, width))
        for name, part in parts.items():
            setattr(self, name, part)


def resampler(input_dim, output_dim):
    return AttentionResampler(
        input_dim=input_dim, output_dim=output_dim, num_queries=64, num_heads=32
    )


def sdxl(kind=SDXLImageDecoder):
    return kind(width=4096, num_tokens=64, resampler=ResamplerXLV2())


@pytest.fixture(scope="module")
def seedx():
    """SEED-X at its published size, without memory."""
    with torch.device("meta"):
        return Parts(
            5120,
            vision_encoder=QwenVisionEncoder(),
            projector=resampler(4096, 5120),
            language_model=HuggingFaceLanguageModel(config=LLAMA2),
            output_projector=resampler(5120, 4096),
            image_decoder=sdxl(),
        )


@pytest.fixture(scope="module")
def layouts(shared):
    return json.loads((shared / "golden" / "checkpoint_layouts.json").read_text())


def expand(layout):
    """Keys with shapes; a pattern with one number counts from 0."""
    for entry in layout["keys"]:
        pattern, count = entry["pattern"], entry.get("count") or 1
        assert pattern.count("{i}") <= 1, pattern
        for number in range(count):
            yield pattern.replace("{i}", str(number)), tuple(entry["shape"])


def check(layout, model):
    """Every key lands on a slot of its shape, or is a known leftover; gives what was filled."""
    keys = dict(expand(layout))
    slots = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    filled, leftovers, updates = {}, {}, {}
    for key, place in translate(keys, slots).items():
        if place.role == "unused":
            leftovers[key] = keys[key]
        elif place.role == "value":
            assert slots[place.name] == keys[key], (key, place)
            assert place.name not in filled, key
            filled[place.name] = keys[key]
        else:
            updates.setdefault(place.name, {})[place.role] = keys[key]
    for name, update in updates.items():
        rank = update["lora_A"][0]
        assert update["lora_B"] == (slots[name][0], rank)
        assert update["lora_A"] == (rank, slots[name][1])
        assert name in filled
    if "params" in layout:
        assert sum(map(math.prod, keys.values())) == layout["params"]
        assert len(keys) == layout["n_keys"]
    return filled, leftovers, updates


def part(model, prefix):
    return {name for name in model.state_dict() if name.startswith(prefix)}


def test_the_vision_encoder(layouts, seedx):
    filled, leftovers, _ = check(layouts["qwen_vit_G.pt"], seedx)
    assert set(filled) == part(seedx, "vision_encoder.")
    assert not leftovers
    alone, _, _ = check(layouts["qwen_vit_G.pt"], seedx.vision_encoder)
    assert set(alone) == set(seedx.vision_encoder.state_dict())


def test_the_language_model_of_seedx(layouts):
    with torch.device("meta"):
        model = Parts(
            0, language_model=HuggingFaceLanguageModel(config=LLAMA2 | {"vocab_size": 32000})
        )
    layout = layouts["llama2/pytorch_model-0000x-of-00006.bin"]
    filled, leftovers, _ = check(layout, model)
    assert set(filled) == set(model.state_dict())
    assert all(key.endswith("inv_freq") for key in leftovers)
    alone, _, _ = check(layout, model.language_model)
    assert set(alone) == set(model.language_model.state_dict())


def test_all_of_seedx_but_the_image_decoder(layouts, seedx):
    name = "pytorch_model.bin (SEED.from_pretrained, peft 0.4.0 key style)"
    filled, leftovers, updates = check(layouts[name], seedx)
    assert set(filled) == set(seedx.state_dict()) - part(seedx, "image_decoder.")
    assert len(updates) == 40 * 7
    assert {key.rpartition(".layers.")[2].partition(".")[2] or key for key in leftovers} == {
        "self_attn.rotary_emb.inv_freq",
        "input_layernorm.original_module.weight",
        "post_attention_layernorm.original_module.weight",
        "base_model.model.model.norm.original_module.weight",
    }


def test_the_agent_of_seedx(layouts, seedx):
    filled, leftovers, _ = check(layouts["SEED-X agent/pytorch_model.bin (ContinuousLVLM)"], seedx)
    expected = part(seedx, "projector.") | part(seedx, "output_projector.") | {"patch_pos_embed"}
    assert set(filled) == expected
    assert not leftovers


def test_the_reading_model(layouts):
    with torch.device("meta"):
        model = Parts(
            4096,
            vision_encoder=HuggingFaceVisionEncoder(config=SIGLIP),
            projector=resampler(1152, 4096),
            language_model=HuggingFaceLanguageModel(config=LLAMA3),
        )
    filled, leftovers, updates = check(layouts["mllm_llama3_8b_siglip_vit"], model)
    assert set(filled) == set(model.state_dict())
    assert len(updates) == 32 * 7
    assert {
        "head" in key or "original_module" in key or "inv_freq" in key for key in leftovers
    } == {True}


@pytest.mark.parametrize("kind", [SDXLImageDecoder, SDXLEditImageDecoder])
def test_the_detokenizer(layouts, kind):
    """Its patterns hold several numbers, so shapes are compared as they are counted."""
    layout = layouts["detokenizer/pytorch_model.bin (SDXLAdapter: unet.* + resampler.*)"]
    with torch.device("meta"):
        model = Parts(0, image_decoder=sdxl(kind))
    slots = model.state_dict()
    ours = [name for name in slots if not name.startswith("image_decoder.vae.")]
    keys = [name.removeprefix("image_decoder.") for name in ours]
    places = translate(keys, slots)
    assert [places[key] for key in keys] == [Place(name, "value") for name in ours]
    wanted: dict[tuple[int, ...], int] = {}
    for entry in layout["keys"]:
        shape = tuple(entry["shape"])
        if kind is SDXLEditImageDecoder and entry["pattern"] == "unet.conv_in.weight":
            shape = (320, 8, 3, 3)
        wanted[shape] = wanted.get(shape, 0) + (entry.get("count") or 1)
    found: dict[tuple[int, ...], int] = {}
    for name in ours:
        found[tuple(slots[name].shape)] = found.get(tuple(slots[name].shape), 0) + 1
    assert found == wanted
    assert len(ours) == layout["n_keys"]
    extra = 320 * 4 * 9 if kind is SDXLEditImageDecoder else 0
    assert sum(slots[name].numel() for name in ours) == layout["params"] + extra


def test_names_of_parts_a_model_lacks_are_not_needed():
    places = translate(["projector.query", "vision_encoder.proj"], ["vision_encoder.proj"])
    assert places["projector.query"].role == "unused"
    assert places["vision_encoder.proj"] == Place("vision_encoder.proj", "value")


def test_unknown_names_inside_a_part_are_not_taken_for_leftovers():
    places = translate(
        ["vision_encoder.proj", "vision_encoder.prog"], ["vision_encoder.proj", "projector.query"]
    )
    assert places["vision_encoder.prog"] == Place("vision_encoder.prog", "value")


def test_names_of_the_model_itself_are_never_translated():
    slot = "language_model.causal_lm.model.layers.0.q_proj.lora_A.default.weight"
    assert translate([slot], [slot]) == {slot: Place(slot, "value")}


def test_examples_are_a_few():
    assert examples(["b", "a"]) == "a, b"
    assert examples(list("dcba")) == "a, b, c, ..."


def test_a_llava_model_is_known_by_the_names_of_its_folder_and_of_its_memory():
    slots = ["language_model.causal_lm.lm_head.weight", "projector.mlp.0.bias", "newline"]
    for keys in (
        ["language_model.lm_head.weight", "multi_modal_projector.linear_1.bias", "image_newline"],
        ["lm_head.weight", "model.multi_modal_projector.linear_1.bias", "model.image_newline"],
    ):
        places = translate(keys, slots)
        assert [places[key] for key in keys] == [Place(name, "value") for name in slots]
