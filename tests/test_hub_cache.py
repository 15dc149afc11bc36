"""Models of the Hub are found in the local cache, and nowhere else."""

import json

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.hub_cache import cached_snapshot, download_advice, is_hub_id, part_folder
from mllm_npu.models.huggingface_config import read_config
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.part_numbers import language_number

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 64,
}
COMMIT = "0123456789012345678901234567890123456789"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the Hub that holds me/tiny."""
    home = tmp_path / "hub" / "models--me--tiny"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    (home / "snapshots" / COMMIT).mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return home / "snapshots" / COMMIT


@pytest.mark.parametrize("name", ["me/tiny", "Qwen/Qwen2-0.5B", "pretrained/llama2"])
def test_two_names_with_a_stroke_may_be_an_id(name):
    assert is_hub_id(name)


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "/a/b", "./a", "../a", "a/", "a b/c"])
def test_other_paths_are_none(name):
    assert not is_hub_id(name)
    assert cached_snapshot(name) is None
    assert download_advice(name) == ""


def test_a_cached_model_is_found_by_its_id(cache):
    assert cached_snapshot("me/tiny") == cache
    assert part_folder("me/tiny") == cache
    assert cached_snapshot("me/other") is None
    assert cached_snapshot("me/tiny", revision="old") is None


def test_a_folder_comes_before_the_cache(cache, tmp_path):
    (tmp_path / "me" / "tiny").mkdir(parents=True)
    assert str(part_folder("me/tiny")) == "me/tiny"


def test_a_part_is_built_from_the_cache(cache):
    built = HuggingFaceLanguageModel(config=LLAMA)
    built.causal_lm.save_pretrained(cache)
    assert language_number("width", {"path": "me/tiny"}) == 32
    assert read_config(None, "me/tiny", part="A part").hidden_size == 32
    loaded = HuggingFaceLanguageModel(path="me/tiny")
    first, second = (dict(model.named_parameters()) for model in (built, loaded))
    assert all((first[name] == second[name]).all() for name in first)


def test_a_model_that_is_not_there_says_how_to_get_it(cache):
    for look in (
        lambda: read_config(None, "me/other", part="A part"),
        lambda: language_number("width", {"path": "me/other"}),
    ):
        with pytest.raises(ConfigError) as refused:
            look()
        assert "hf download me/other --local-dir FOLDER" in str(refused.value)
        assert str(cache.parents[2]) in str(refused.value)


def test_a_path_that_can_be_no_id_gives_no_advice(cache, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    with pytest.raises(ConfigError) as refused:
        read_config(None, "a/b/c", part="A part")
    assert "hf download" not in str(refused.value)
    assert read_config(None, str(tmp_path), part="A part").vocab_size == 64
