"""A model folder's parts become options that an experiment is composed with."""

from pathlib import Path

import pytest

from mllm_npu.config import load_config, plain, read_config, write_config
from mllm_npu.errors import ConfigError
from mllm_npu.zoo.llava_import import import_llava
from mllm_npu.zoo.train_further import offer_model


@pytest.fixture
def folder(hub_models, tmp_path):
    return import_llava(hub_models("llava_next with mistral").folder, tmp_path / "ours")


def test_an_experiment_takes_the_parts_and_weights_of_a_folder(folder, hub_models):
    config = load_config("training", ["experiment=llava/lora", *offer_model(folder)])
    own = read_config(folder / "model.yaml", "model")
    assert plain(config.models) == plain(own.models)
    assert plain(config.processor) == plain(own.processor)
    assert config.tokenizer.path == str(folder / "tokenizer")
    assert list(config.initialise_from) == [str(hub_models("llava_next with mistral").folder)]
    assert config.lora.rank == 128


def test_single_values_may_be_changed(folder):
    words = [
        *offer_model(folder),
        "models.language_model.dtype=bfloat16",
        "processor.max_tokens=99",
    ]
    config = load_config("training", ["experiment=llava/finetune", *words])
    assert config.models.language_model.dtype == "bfloat16"
    assert config.processor.max_tokens == 99


def test_a_copied_folder_is_its_own_weights(hub_models, tmp_path):
    given = hub_models("llava with llama").folder
    folder = import_llava(given, tmp_path / "copied", copy=True)
    config = load_config("training", ["experiment=llava/finetune", *offer_model(folder)])
    assert [Path(path).resolve() for path in config.initialise_from] == [folder.resolve()]


def test_files_that_a_folder_brings_are_found(folder):
    config = read_config(folder / "model.yaml", "model")
    (folder / "brought").mkdir()
    (folder / "brought" / "config.json").write_text("{}")
    config.models.language_model.path = "brought"
    del config.models.language_model["config"]
    write_config(config, folder / "model.yaml")
    words = offer_model(folder)
    made = load_config(
        "training",
        ["experiment=llava/finetune", *words],
    )
    assert made.models.language_model.path == str(folder / "brought")


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is none"):
        offer_model(tmp_path)
