import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.models.huggingface_config import build_pretrained, read_config, resolve_dtype

LLAMA = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2}


def read(config=None, path=None):
    return read_config(config, path, part="The part")


def test_a_dict_becomes_the_config_of_its_family():
    config = read(LLAMA)
    assert type(config).__name__ == "LlamaConfig"
    assert config.hidden_size == 8


def test_names_of_older_configs_and_aliases_are_known():
    assert read({**LLAMA, "rope_theta": 5.0}).rope_parameters["rope_theta"] == 5.0
    assert read({"model_type": "gpt2", "hidden_size": 12, "n_head": 2}).n_embd == 12


def test_the_dict_of_the_caller_stays_as_it_is():
    given = dict(LLAMA)
    read(given)
    assert given == LLAMA


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {**LLAMA, "hiden_size": 8},
            "The part .*unknown key 'hiden_size'.* near keys: hidden_size",
        ),
        ({**LLAMA, "a": 1, "b": 2}, "'a', 'b'"),
        ({"model_type": "qwenn3"}, "'qwenn3'.*qwen3"),
        ({"hidden_size": 8}, "model_type=None"),
        ({**LLAMA, "hidden_size": "wide"}, "expected int"),
        ({**LLAMA, "num_attention_heads": 3}, "not a multiple"),
        ({**LLAMA, "num_attention_heads": 0}, "num_attention_heads=0; give whole numbers"),
        ({**LLAMA, "hidden_size": -8}, "hidden_size=-8"),
        ({**LLAMA, "vocab_size": 10.5}, "vocab_size=10.5"),
    ],
)
def test_a_dict_that_makes_no_sense_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        read(config)


def test_exactly_one_description_is_needed():
    with pytest.raises(ConfigError, match="neither config nor path"):
        read()
    with pytest.raises(ConfigError, match="both config and path"):
        read(LLAMA, "/x")


def test_folders_that_hold_no_config_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere.*no config.json"):
        read(path=str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot read"):
        read(path=str(tmp_path))
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(ConfigError, match="cannot read"):
        read(path=str(tmp_path))


def test_code_in_a_folder_is_never_run(tmp_path):
    description = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(description))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    with pytest.raises(ConfigError, match="cannot read"):
        read(path=str(tmp_path))
    assert not (tmp_path / "was_run").exists()


def test_a_folder_of_torch_files_is_loaded_and_one_of_pickles_is_not(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    config = read(path=str(tmp_path))
    model = AutoModelForCausalLM.from_config(config)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    loaded = build_pretrained(AutoModelForCausalLM, config, str(tmp_path), part="The part")
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    (tmp_path / "pytorch_model.bin").write_bytes(b"no matter")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin cannot be read"):
        build_pretrained(AutoModelForCausalLM, config, str(tmp_path), part="The part")


def test_only_known_number_types_are_taken():
    assert resolve_dtype("bfloat16", part="A") is torch.bfloat16
    with pytest.raises(ConfigError, match="'auto'; choose one of float32"):
        resolve_dtype("auto", part="A")
