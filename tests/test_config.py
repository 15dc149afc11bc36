from pathlib import Path

import pytest

from mllm_npu.config import (
    load_config,
    offer_option,
    plain,
    read_config,
    to_yaml,
    write_config,
)
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_steps=abc", r"train\.max_steps='abc' .*whole number"),
        ("train.max_steps=1.5", r"train\.max_steps=1\.5 .*whole number"),
        ("train.optimizer.lr=null", r"train\.optimizer\.lr=null .*a number"),
        ("train.optimizer=null", r"train\.optimizer=null .*\(AdamW\)"),
        ("train.recorder.progress=maybe", r"progress='maybe' .*true or false"),
        ("objective.trainable=abc", r"trainable='abc' .*a list"),
        ("processor.any_resolution.grids=5", r"grids=5 .*a list"),
        ("dataset.sources=null", r"dataset\.sources=null .*a list"),
        ("dataset.sources.0.weight=abc", r"dataset\.sources\[0\]\.weight='abc'"),
        ("generation.guidance=abc", r"generation\.guidance='abc'"),
        ("seed=null", "seed=null .*whole number"),
        ("run_dir=null", "run_dir=null .*a text"),
        ("stages=x", "stages='x' .*a list"),
        ("threads=x", "threads='x' .*a whole number or one of auto"),
        ("models=null", "composed"),
        ("models.vision_encoder=null", "vision encoder is None"),
        ("models.output_projector=null", "output_projector"),
        ("=3", "composed"),
        ("train.max_steps=[", "composed"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_path(override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config("training", [override])
    assert "\n" not in str(caught.value)


def test_an_experiment_that_does_not_exist_is_refused():
    for name in ("nowhere", "digits/nowhere"):
        with pytest.raises(ConfigError, match=f"experiment/{name}"):
            load_config("training", [f"experiment={name}"])


def test_a_name_may_be_a_number():
    assert load_config("training", ["name=7"]).run_dir == "runs/7/single"


SAVED = {
    "os.system": "parts of mllm_npu models",
    "mllm_npu.cli.main": "parts of mllm_npu models",
    "mllm_npu.data.worlds.digits.make_digits": "parts of mllm_npu models",
    "mllm_npu.models.mllm.Nothing": "cannot be imported",
}


@pytest.mark.parametrize(("target", "message"), SAVED.items())
def test_a_model_folder_may_name_parts_of_models_only(tmp_path: Path, target, message):
    file = tmp_path / "model.yaml"
    file.write_text(f"name: x\nmodels:\n  projector:\n    _target_: {target}\n    seed: 1\n")
    with pytest.raises(ConfigError, match=message):
        read_config(file, "model")


def test_a_model_folder_holds_values_only(tmp_path: Path):
    file = tmp_path / "model.yaml"
    file.write_text("name: ${oc.env:HOME}\n")
    with pytest.raises(ConfigError, match=r"name is the reference .*HOME"):
        read_config(file, "model")


def test_a_model_folder_names_all_its_parts(tmp_path: Path):
    file = tmp_path / "model.yaml"
    file.write_text("name: x\n")
    with pytest.raises(ConfigError, match=r"tokenizer, processor, models, generation has no value"):
        read_config(file, "model")


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_config(load_config("model"), tmp_path / "file" / "model.yaml")


def test_a_task_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(ConfigError, match=r"task/nope.*Tasks are bbh, ceval, .*mmlu"):
        load_config("evaluation", ["task=[nope]"])


def test_an_option_that_stands_in_no_file_can_be_chosen_and_changed():
    values = plain(load_config("model", ["models=mllm_tiny"]).models)
    values["language_weight"] = 0.25
    offer_option("models", "lent", values)
    config = load_config("model", ["models=lent", "models.patch_positions=false"])
    assert plain(config.models) == {**values, "patch_positions": False}
    with pytest.raises(ConfigError, match="models/borrowed"):
        load_config("model", ["models=borrowed"])
