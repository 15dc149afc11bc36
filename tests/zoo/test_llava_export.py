"""What was imported goes back bit for bit, and transformers loads it."""

import json

import pytest
import torch
from safetensors.torch import load_file

from mllm_npu.build import build_model
from mllm_npu.config import read_config, write_config
from mllm_npu.data.collate import BlankTile, collate
from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.model_folder import load_model
from mllm_npu.models.weights import save_weights
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn
from mllm_npu.zoo.llava_export import export_llava
from mllm_npu.zoo.llava_import import import_llava

KINDS = (
    "llava with llama",
    "llava_next with llama",
    "llava_next with mistral",
    "llava_next with qwen2",
    "llava_onevision with qwen2",
)


def load(hub_model, folder):
    model, report = type(hub_model.model).from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    return model.eval()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("copy", [False, True], ids=["by reference", "copied"])
def test_a_round_trip_changes_no_bit(name, copy, hub_models, tmp_path):
    given = hub_models(name)
    import_llava(given.folder, tmp_path / "ours", copy=copy)
    export_llava(tmp_path / "ours", tmp_path / "back")
    back = load(given, tmp_path / "back").state_dict()
    own = given.model.state_dict()
    assert list(back) == list(own)
    assert all(torch.equal(back[key], own[key]) for key in own)
    kept = {file.name for file in given.folder.iterdir()} - {"model.safetensors"}
    assert kept
    for file in kept:
        assert (tmp_path / "back" / file).read_bytes() == (given.folder / file).read_bytes(), file
    names = set(load_file(tmp_path / "back" / "model.safetensors"))
    assert "language_model.model.embed_tokens.weight" in names
    assert any(key.startswith("vision_tower.vision_model.") for key in names)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["architectures"]


def assert_same_values(folder, given):
    back, own = load(given, folder).state_dict(), given.model.state_dict()
    assert list(back) == list(own)
    assert all(torch.equal(back[key].to(own[key].dtype), own[key]) for key in own)


def test_a_head_that_is_the_table_is_stored_once(kinds, make_hub, pictures, tmp_path):
    kind = kinds["llava_onevision with qwen2"]
    given = make_hub(kind, tmp_path / "hub", tie_word_embeddings=True)
    assert given.model.lm_head.weight is given.model.get_input_embeddings().weight
    import_llava(given.folder, tmp_path / "ours", copy=True)
    model, processor, _ = load_model(tmp_path / "ours")
    assert model.language_model.causal_lm.config.tie_word_embeddings
    export_llava(tmp_path / "ours", tmp_path / "back")
    names = set(load_file(tmp_path / "back" / "model.safetensors"))
    assert "language_model.lm_head.weight" not in names
    assert_same_values(tmp_path / "back", given)
    parts = (ReadImage(picture=pictures["odd"]), Text(text="what is this?"))
    asked = Conversation(turns=(Turn(role="user", parts=parts),))
    sample = processor.encode(asked, reply=True)
    with torch.no_grad():
        hidden = model.eval().hidden(collate([sample], blank=BlankTile.of(processor)))
        found = model.language_model.logits(hidden)
    expected = given.logits("what is this?", [pictures["odd"]])
    assert float((found - expected).abs().max()) <= 1e-4


def test_half_precision_and_shards_come_back_as_they_were(kinds, make_hub, tmp_path):
    given = make_hub(kinds["llava_next with llama"], tmp_path / "whole")
    given.model.half().save_pretrained(tmp_path / "hub", max_shard_size="60KB")
    for file in given.folder.iterdir():
        if file.name != "model.safetensors" and not (tmp_path / "hub" / file.name).exists():
            (tmp_path / "hub" / file.name).write_bytes(file.read_bytes())
    assert len(list((tmp_path / "hub").glob("*.safetensors"))) > 1
    import_llava(tmp_path / "hub", tmp_path / "ours")
    model, _, _ = load_model(tmp_path / "ours")
    assert {value.dtype for value in model.language_model.parameters()} == {torch.float16}
    export_llava(tmp_path / "ours", tmp_path / "back")
    values = load_file(tmp_path / "back" / "model.safetensors")
    assert {value.dtype for value in values.values()} == {torch.float16}
    assert_same_values(tmp_path / "back", given)
    kept = (tmp_path / "hub" / "config.json").read_bytes()
    assert (tmp_path / "back" / "config.json").read_bytes() == kept
    import_llava(tmp_path / "hub", tmp_path / "wide", dtype="float32")
    export_llava(tmp_path / "wide", tmp_path / "float")
    assert json.loads((tmp_path / "float" / "config.json").read_text())["dtype"] == "float32"
    assert_same_values(tmp_path / "float", given)


def test_what_cannot_go_out_is_refused(hub_models, tmp_path):
    import_llava(hub_models("llava with llama").folder, tmp_path / "ours")
    with pytest.raises(ConfigError, match="is there already"):
        export_llava(tmp_path / "ours", tmp_path)
    described = read_config(tmp_path / "ours" / "model.yaml", "model")
    described.models.patch_positions = True
    described.weights = None
    model = build_model(described)
    save_weights(tmp_path / "ours", model)
    write_config(described, tmp_path / "ours" / "model.yaml")
    with pytest.raises(WeightsError, match="patch_pos_embed"):
        export_llava(tmp_path / "ours", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert not (tmp_path / "back.partial").exists()
