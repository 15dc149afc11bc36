from pathlib import Path

import pytest

from mllm_npu.config import load_config, plain, read_config, to_yaml, write_config
from mllm_npu.errors import ConfigError


def test_default_composes_and_references_resolve():
    config = load_config("training")
    values = plain(config)
    assert values["models"]["projector"]["input_dim"] == 96
    assert values["models"]["output_projector"]["output_dim"] == 96
    assert values["processor"]["any_resolution"]["tile_size"] == 16


def test_one_override_swaps_the_language_model():
    config = load_config("training", ["models/language_model=qwen3_tiny"])
    assert config.models.language_model.config.model_type == "qwen3"


def test_one_override_swaps_the_encoder_and_widths_follow():
    config = load_config(
        "training",
        ["models/vision_encoder=dinov2_tiny", "models.vision_encoder.config.hidden_size=64"],
    )
    assert config.models.projector.input_dim == 64
    assert config.models.drawn_features.width == 64
    assert config.models.image_decoder.width == 64


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("+train.lrr=1", "train.lrr"),
        ("+nonsense=1", "nonsense"),
        ("+models.projector.num_querries=4", "models.projector.num_querries"),
        ("+train.optimizer.learning=1", "train.optimizer.learning"),
        ("+dataset.sources.0.wheight=1", "dataset.sources"),
    ],
)
def test_added_unknown_key_is_refused_by_its_path(override, path):
    with pytest.raises(ConfigError, match=path.replace(".", r"\.")):
        load_config("training", [override])


def test_near_key_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'max_steps'"):
        load_config("training", ["+train.max_step=1"])


def test_changed_unknown_key_is_refused():
    with pytest.raises(ConfigError, match="lrr"):
        load_config("training", ["train.lrr=1"])


def test_unknown_option_names_what_there_is():
    with pytest.raises(ConfigError, match="llama_tiny"):
        load_config("training", ["models/language_model=gpt9"])


def test_missing_value_is_named():
    with pytest.raises(ConfigError, match=r"models\.language_model\.path"):
        load_config("training", ["models/language_model=folder", "models.projector.output_dim=8",
                                 "models.output_projector.input_dim=8"])  # fmt: skip


def test_target_that_cannot_be_imported():
    with pytest.raises(ConfigError, match="cannot be imported"):
        load_config("training", ["models.projector._target_=mllm_npu.models.projector.mlp.Nothing"])


def test_missing_folder_of_an_encoder():
    with pytest.raises(ConfigError, match="save_pretrained"):
        to_yaml(load_config("training", ["models/vision_encoder=folder",
                                         "models.vision_encoder.path=/nowhere"]))  # fmt: skip


def test_written_config_is_read_back_equal(tmp_path: Path):
    config = load_config("model")
    write_config(config, tmp_path / "model.yaml")
    again = read_config(tmp_path / "model.yaml", "model")
    assert plain(again) == plain(config)
    assert not list(tmp_path.glob("*.partial"))


def test_folder_may_not_name_foreign_code(tmp_path: Path):
    file = tmp_path / "model.yaml"
    file.write_text("name: x\nmodels:\n  _target_: os.system\n  command: echo\n")
    with pytest.raises(ConfigError, match=r"os\.system"):
        read_config(file, "model")


def test_unreadable_files(tmp_path: Path):
    with pytest.raises(ConfigError, match="not there"):
        read_config(tmp_path / "model.yaml", "model")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="not a YAML"):
        read_config(tmp_path / "bad.yaml", "model")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="keys and values"):
        read_config(tmp_path / "list.yaml", "model")
