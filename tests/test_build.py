from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from mllm_npu.build import (
    build_model,
    build_part,
    build_processor,
    check_fit,
    find_model_folder,
    load_engine,
    require_world,
    save_model_folder,
)
from mllm_npu.config import load_config
from mllm_npu.errors import ConfigError, DataError, WeightsError
from mllm_npu.models.mllm import SEED, GeneralizedMultimodalModel
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tokenizer = train_tokenizer(["draw a seven", "which digit is this?"], vocab_size=300)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=16, num_locations=0))
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def composed(world: Path, *overrides: str):
    return load_config("training", [f"world_dir={world}", *overrides])


def test_default_is_a_seed_and_one_override_makes_it_a_reader(world):
    with torch.device("meta"):
        assert isinstance(build_model(composed(world)), SEED)
        reader = build_model(composed(world, "models=mllm_tiny", "objective=comprehension"))
    assert isinstance(reader, GeneralizedMultimodalModel)
    assert not isinstance(reader, SEED)


def test_a_part_that_does_not_fit_says_both_numbers(world):
    config = composed(world, "models.projector.output_dim=32")
    with pytest.raises(ConfigError, match=r"32.*96|96.*32"):
        build_model(config)


def test_a_seed_without_image_decoder_is_refused(world):
    with pytest.raises(ConfigError, match=r"models\.image_decoder=null"):
        composed(world, "models.image_decoder=null")
    config = composed(world, "~models.image_decoder")
    with pytest.raises(ConfigError, match="image_decoder"):
        build_model(config)


def test_null_part_is_refused():
    with pytest.raises(ConfigError, match="null"):
        build_part(None)


def test_missing_argument_names_the_target():
    node = OmegaConf.create({"_target_": "mllm_npu.models.drawn_features.DrawnFeatures"})
    with pytest.raises(ConfigError, match="DrawnFeatures"):
        build_part(node)


def test_a_bug_in_a_part_is_not_called_a_configuration_error():
    inner = OmegaConf.create({"_target_": "operator.truediv", "_args_": [1, 0]})
    node = OmegaConf.create({"_target_": "builtins.dict", "value": inner})
    with pytest.raises(ZeroDivisionError):
        build_part(node)


def test_missing_world_says_how_to_make_it(tmp_path):
    config = composed(tmp_path / "digits")
    with pytest.raises(ConfigError, match="mllm-npu data digits"):
        require_world(config)


FITTING = {
    "tokenizer": range(10),
    "num_read_tokens": 4,
    "num_drawn_tokens": 9,
    "max_tokens": 64,
    "any_resolution": SimpleNamespace(tile_size=16),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": range(11)}, r"11 tokens.*10 rows"),
        ({"num_read_tokens": 9}, r"num_read_tokens=9 does not fit.*needs 4"),
        ({"num_drawn_tokens": 0}, r"num_drawn_tokens=0 does not fit.*needs 9"),
        ({"any_resolution": SimpleNamespace(tile_size=32)}, r"tile_size=32 .*needs 16"),
        ({"max_tokens": 65}, r"max_tokens=65.*at most 64"),
    ],
)
def test_processor_and_model_must_agree(change, message):
    model = SimpleNamespace(
        language_model=SimpleNamespace(vocab_size=10, max_tokens=64),
        projector=SimpleNamespace(num_queries=4),
        vision_encoder=SimpleNamespace(tile_size=16),
        drawn_features=SimpleNamespace(num_tokens=9),
    )
    check_fit(model, SimpleNamespace(**FITTING))
    with pytest.raises(ConfigError, match=message):
        check_fit(model, SimpleNamespace(**{**FITTING, **change}))


def test_a_reader_with_the_processor_of_its_configuration_fits(world):
    """Nothing is drawn, so no room for drawn pictures is asked for."""
    config = composed(world, "models=mllm_tiny", "objective=comprehension")
    with torch.device("meta"):
        check_fit(build_model(config), build_processor(config))
    assert config.processor.num_drawn_tokens == 0


def test_training_is_refused_on_a_half_made_world(world, tmp_path):
    (tmp_path / "world.json.partial").touch()
    with pytest.raises(DataError, match="not finished"):
        require_world(composed(tmp_path))
    assert require_world(composed(world)) is None


def test_a_model_that_cannot_be_written_leaves_nothing(world, tmp_path):
    config = composed(world)
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot be written"):
        save_model_folder(build_model(config), config, tmp_path / "file" / "model")
    config.tokenizer.path = str(tmp_path / "gone")
    with pytest.raises(WeightsError, match="cannot be written"):
        save_model_folder(build_model(config), config, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_saved_folder_answers_alone(world, tmp_path):
    """The folder brings its tokenizer along, and its weights are the ones that were saved."""
    config = composed(world)
    model = build_model(config)
    folder = tmp_path / "run" / "decoder" / "model"
    folder.parent.mkdir(parents=True)
    save_model_folder(model, config, folder)
    engine, again = load_engine(find_model_folder(tmp_path / "run"), device="cpu")
    assert again.tokenizer.path == str(folder / "tokenizer")
    assert engine.processor.augment is None
    saved = dict(model.named_parameters())
    for name, parameter in engine.model.named_parameters():
        assert torch.equal(parameter, saved[name]), name
    assert not list(tmp_path.rglob("*.partial"))


def test_low_rank_updates_are_folded_into_the_saved_weights(world, tmp_path):
    config = composed(world, "+lora=language_model")
    model = build_model(config)
    build_part(config.lora).apply(model.language_model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    ids = torch.arange(8)
    asked = {"position_ids_T": torch.arange(8), "sequence_ends": (8,)}
    hidden = model.language_model.eval()(model.language_model.embed(ids), **asked)
    save_model_folder(model, config, tmp_path / "model")
    engine, again = load_engine(tmp_path / "model", device="cpu")
    assert again.lora is None
    plain = engine.model.language_model
    torch.testing.assert_close(plain(plain.embed(ids), **asked), hidden, rtol=1e-4, atol=1e-5)


def test_no_model_says_how_to_train_one(tmp_path):
    with pytest.raises(ConfigError, match="mllm-npu train"):
        find_model_folder(tmp_path)


def test_weights_of_another_model_are_refused(world, tmp_path):
    config = composed(world)
    save_model_folder(build_model(config), config, tmp_path / "model")
    file = tmp_path / "model" / "model.yaml"
    text = file.read_text().replace("num_hidden_layers: 3", "num_hidden_layers: 2")
    file.write_text(text)
    with pytest.raises(WeightsError):
        load_engine(tmp_path / "model", device="cpu")
