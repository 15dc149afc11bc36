"""A model composed here, at the published sizes too, is described as transformers builds it."""

import json

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING

from mllm_npu.build import build_model
from mllm_npu.config import load_config, select
from mllm_npu.errors import ConfigError
from mllm_npu.model_folder import load_model, save_model_folder
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.zoo.card import find_card
from mllm_npu.zoo.hub_folder import open_hub_folder
from mllm_npu.zoo.llava_config import make_config, read_kept_config, update_config
from mllm_npu.zoo.llava_export import export_llava
from mllm_npu.zoo.llava_family import FAMILIES, read_family
from mllm_npu.zoo.llava_import import import_llava
from mllm_npu.zoo.llava_names import hub_names, require_values, untied_values

VICUNA = {"rms_norm_eps": 1e-5, "vocab_size": 32064}
VICUNA_13B = {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
}
LLAMA3 = {"intermediate_size": 14336, "num_key_value_heads": 8, "vocab_size": 128320}
QWEN_72B = {
    "hidden_size": 8192,
    "intermediate_size": 24576,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "vocab_size": 152064,
}
QWEN2_05B = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 152000,
    "tie_word_embeddings": True,
}
QWEN2_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152128,
}
PUBLISHED = {
    "llava_1_5_7b": ("llava", "llama", VICUNA),
    "llava_1_5_13b": ("llava", "llama", {**VICUNA, **VICUNA_13B}),
    "llava_next_llama3_8b": ("llava_next", "llama", LLAMA3),
    "llava_next_mistral_7b": ("llava_next", "mistral", {"vocab_size": 32064}),
    "llava_next_qwen_72b": ("llava_next", "qwen2", QWEN_72B),
    "llava_onevision_qwen2_0_5b": ("llava_onevision", "qwen2", QWEN2_05B),
    "llava_onevision_qwen2_7b": ("llava_onevision", "qwen2", QWEN2_7B),
}
"""Text models by their config.json; the towers are the defaults of transformers' classes."""
CARDS = {"llava_next_qwen_72b": "llava_next_qwen"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_are_those_of_transformers(name):
    family, language, text = PUBLISHED[name]
    config = CONFIG_MAPPING[family](text_config={"model_type": language, **text})
    values = select(load_config("training", [f"models={name}"]), ("models", "lora"))
    with torch.device("meta"):
        theirs = getattr(transformers, FAMILIES[family])(config)
        ours = build_model(values)
    own = untied_values(ours)
    named = hub_names(own)
    require_values({named[key]: own[key] for key in own}, untied_values(theirs))
    count = sum(value.numel() for value in own.values())
    assert count == find_card(CARDS.get(name, name)).parameters


@pytest.mark.parametrize(
    "name", ["llava with llama", "llava_next with mistral", "llava_onevision with qwen2"]
)
def test_without_kept_files_a_folder_is_made_that_reads_the_same(
    name, hub_models, pictures, tmp_path
):
    given = hub_models(name)
    import_llava(given.folder, tmp_path / "ours", copy=True)
    tokenizer = tmp_path / "ours" / "tokenizer"
    beside = {file.name for file in tokenizer.iterdir()}
    for kept in beside - {"tokenizer.json", "tokenizer_config.json"}:
        (tokenizer / kept).unlink()
    assert read_kept_config(tokenizer) is None
    export_llava(tmp_path / "ours", tmp_path / "made")
    hub = open_hub_folder(tmp_path / "made")
    first, again = read_family(open_hub_folder(given.folder)), read_family(hub)
    assert again.tiling == first.tiling
    assert again.num_read_tokens == first.num_read_tokens
    model = type(given.model).from_pretrained(tmp_path / "made").eval()
    inputs = given.inputs("what is this?", [pictures["odd"]])
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, given.model(**inputs).logits)
    told = hub.read_json("processor_config.json")
    assert told["image_token"] == "<image>"
    assert hub.read_json("generation_config.json")["eos_token_id"] == 2
    assert "<image>" in hub.read_text("chat_template.jinja")
    import_llava(tmp_path / "made", tmp_path / "again", chat_format="vicuna")
    assert load_model(tmp_path / "again")[1].num_read_tokens == again.num_read_tokens


def test_a_grown_vocabulary_and_another_type_are_written(hub_models):
    kept = json.loads((hub_models("llava with llama").folder / "config.json").read_text())
    rows = kept["text_config"]["vocab_size"]
    assert update_config(kept, rows, "float32") == kept
    grown = update_config(kept, rows + 8, "bfloat16")
    assert grown["text_config"]["vocab_size"] == rows + 8
    assert grown["dtype"] == "bfloat16"
    assert kept["text_config"]["vocab_size"] == rows
    del kept["dtype"]
    assert "dtype" not in update_config(kept, rows, "bfloat16")


def test_a_vocabulary_that_has_grown_here_goes_out_whole(hub_models, pictures, tmp_path):
    given = hub_models("llava_next with qwen2")
    import_llava(given.folder, tmp_path / "ours")
    model, _, config = load_model(tmp_path / "ours")
    rows = model.language_model.vocab_size
    model.language_model.resize_vocabulary(rows + 8)
    config.models.language_model.vocab_size = rows + 8
    save_model_folder(model, config, tmp_path / "grown")
    export_llava(tmp_path / "grown", tmp_path / "back")
    back, report = type(given.model).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not report["mismatched_keys"]
    assert back.config.text_config.vocab_size == rows + 8
    inputs = given.inputs("what is this?", [pictures["odd"]])
    with torch.no_grad():
        found, expected = back(**inputs).logits, given.model(**inputs).logits
    assert torch.equal(found[..., :rows], expected)


@pytest.fixture
def parts(hub_models, tmp_path):
    import_llava(hub_models("llava with llama").folder, tmp_path / "ours")
    return load_model(tmp_path / "ours")[:2]


def test_parts_that_no_such_model_has_are_refused(parts):
    model, processor = parts
    assert make_config(model, processor)["model_type"] == "llava"
    model.vision_encoder.layer, model.vision_encoder.final_norm = -1, True
    with pytest.raises(ConfigError, match="final_norm=false"):
        make_config(model, processor)
    model.vision_encoder.layer = -2
    processor.any_resolution = AnyResolution(grids=["1x1"], tile_size=28)
    with pytest.raises(ConfigError, match="cut by AnyResolution"):
        make_config(model, processor)
    model.projector = torch.nn.Identity()
    with pytest.raises(ConfigError, match="with Identity"):
        make_config(model, processor)


def test_a_config_of_another_family_is_not_kept(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert read_kept_config(tmp_path) is None
