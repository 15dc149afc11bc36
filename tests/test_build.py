from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mllm_npu.build import (
    build_model,
    build_part,
    check_fit,
    find_model_folder,
    load_engine,
    require_world,
    save_model_folder,
)
from mllm_npu.config import load_config
from mllm_npu.errors import ConfigError, WeightsError
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
    config = composed(world, "models.image_decoder=null")
    with pytest.raises(ConfigError, match=r"image_decoder|image decoder"):
        build_model(config)


def test_null_part_is_refused():
    with pytest.raises(ConfigError, match="null"):
        build_part(None)


def test_missing_argument_names_the_target():
    node = OmegaConf.create({"_target_": "mllm_npu.models.drawn_features.DrawnFeatures"})
    with pytest.raises(ConfigError, match="DrawnFeatures"):
        build_part(node)


def test_missing_world_says_how_to_make_it(tmp_path):
    config = composed(tmp_path / "digits")
    with pytest.raises(ConfigError, match="mllm-npu data digits"):
        require_world(config)


class Part:
    def __init__(self, **values):
        self.__dict__.update(values)


def test_processor_and_model_must_agree():
    model = Part(language_model=Part(vocab_size=10), projector=Part(num_queries=4))
    with pytest.raises(ConfigError, match=r"11.*10"):
        check_fit(model, Part(tokenizer=range(11), num_read_tokens=4))
    with pytest.raises(ConfigError, match=r"4.*9"):
        check_fit(model, Part(tokenizer=range(10), num_read_tokens=9))
    check_fit(model, Part(tokenizer=range(10), num_read_tokens=4))


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
