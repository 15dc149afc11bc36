import json
import sys
from types import SimpleNamespace

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.part_numbers import language_number, vision_number

QWEN = {"_target_": "mllm_npu.models.vision_encoder.qwen_vit.QwenVisionEncoder"}
LLAMA = {"config": {"model_type": "llama", "vocab_size": 50}}
SIGLIP = {"model_type": "siglip_vision_model", "hidden_size": 96, "image_size": 16, "patch_size": 4}


@pytest.mark.parametrize(("field", "value"), [("width", 96), ("tile_size", 16), ("num_tokens", 16)])
def test_numbers_of_an_inline_configuration(field, value):
    assert vision_number(field, {"config": SIGLIP}) == value


def test_defaults_of_the_family_count():
    assert vision_number("width", {"config": {"model_type": "siglip_vision_model"}}) == 768
    assert language_number("width", {"config": {"model_type": "llama"}}) == 4096


def test_an_encoder_that_counts_patches_instead_of_pixels():
    config = {"model_type": "siglip2_vision_model", "num_patches": 16, "patch_size": 4}
    assert vision_number("tile_size", {"config": config}) == 16
    assert vision_number("num_tokens", {"config": config}) == 16


def test_a_language_model_that_names_its_width_differently():
    assert language_number("width", {"config": {"model_type": "gpt2", "n_embd": 48}}) == 48


def test_a_folder_and_what_is_written_over_it(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SIGLIP))
    assert vision_number("width", {"path": str(tmp_path)}) == 96
    assert vision_number("width", {"path": str(tmp_path), "config": {"hidden_size": 32}}) == 32


@pytest.mark.parametrize(
    ("field", "default"), [("width", 4096), ("tile_size", 448), ("num_tokens", 256)]
)
def test_a_part_states_its_numbers_itself(field, default):
    """Its path is a file of weights, which is not looked at."""
    assert vision_number(field, QWEN | {"path": "/nowhere/qwen_vit_G.pt"}) == default
    assert vision_number(field, QWEN | {field: 64}) == 64


def test_a_number_without_a_default_has_to_be_written(monkeypatch):
    module = SimpleNamespace(Encoder=lambda *, width, num_tokens=4, tile_size=16: None)
    monkeypatch.setitem(sys.modules, "a_module", module)
    part = {"_target_": "a_module.Encoder"}
    assert vision_number("num_tokens", part) == 4
    assert vision_number("width", part | {"width": 8}) == 8
    with pytest.raises(ConfigError, match="width of the vision encoder is not in"):
        vision_number("width", part)


def test_an_encoder_of_hugging_face_states_none(tmp_path):
    target = "mllm_npu.models.vision_encoder.huggingface.HuggingFaceVisionEncoder"
    (tmp_path / "config.json").write_text(json.dumps(SIGLIP))
    for source in ({"config": SIGLIP}, {"path": str(tmp_path)}):
        assert vision_number("width", {"_target_": target, **source}) == 96


def test_a_class_that_is_not_there_is_left_to_the_place_that_builds_it():
    for target in ("no.such.Thing", "mllm_npu.models.Nothing", "nothing", "math.pi"):
        assert vision_number("width", {"_target_": target, "config": SIGLIP}) == 96
        with pytest.raises(ConfigError, match="model_type"):
            vision_number("width", {"_target_": target, "width": 64})


def test_a_grown_vocabulary_counts():
    assert language_number("vocab_size", LLAMA) == 50
    assert language_number("vocab_size", LLAMA | {"vocab_size": None}) == 50
    assert language_number("vocab_size", LLAMA | {"vocab_size": 60}) == 60
    assert language_number("width", LLAMA | {"vocab_size": 60}) == 4096


@pytest.mark.parametrize("value", ["abc", -4, 16.5])
def test_a_stated_size_that_is_no_number_is_named(value):
    with pytest.raises(ConfigError, match="width="):
        vision_number("width", QWEN | {"width": value})
    with pytest.raises(ConfigError, match="vocab_size="):
        language_number("vocab_size", LLAMA | {"vocab_size": value})


def test_what_cannot_be_known_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="colour"):
        vision_number("colour", {"config": SIGLIP})
    with pytest.raises(ConfigError, match="save_pretrained"):
        vision_number("width", {"path": str(tmp_path)})
    with pytest.raises(ConfigError, match="llama"):
        language_number("width", {"config": {"model_type": "lama"}})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        vision_number("width", {"path": str(tmp_path)})


@pytest.mark.parametrize("part", [None, 5, "siglip"])
def test_a_part_that_is_none_is_refused(part):
    with pytest.raises(ConfigError, match="vision encoder is"):
        vision_number("width", part)
    with pytest.raises(ConfigError, match="language model is"):
        language_number("width", part)


@pytest.mark.parametrize("value", ["abc", 0, -4, 16.5])
def test_a_size_that_is_no_number_is_named(value):
    with pytest.raises(ConfigError, match="image_size="):
        vision_number("tile_size", {"config": {**SIGLIP, "image_size": value}})
