"""Both sides get one configuration but for what is compared."""

import pytest

from mllm_npu.compare.side import read_side
from mllm_npu.compare.side_config import SideConfigs, counted_settings, differing_settings
from mllm_npu.config import load_config, read_config, select, to_yaml, write_config
from mllm_npu.errors import ConfigError
from mllm_npu.model_folder import MODEL_KEYS


def composed(words, overrides, tmp_path):
    sides = [read_side(word) for word in words]
    configs = SideConfigs(sides, overrides, scratch=tmp_path)
    return [configs.of(side) for side in sides]


@pytest.fixture
def stage(overrides, tmp_path):
    """A stage folder that says what was run, and a model in it without weights."""
    config = load_config("training", [*overrides, "seed=5", "objective.feature_cache=null"])
    folder = tmp_path / "run" / "mllm"
    write_config(config, folder / "config.yaml")
    write_config(select(config, MODEL_KEYS), folder / "model" / "model.yaml")
    return folder


def test_sides_differ_in_nothing_but_what_is_compared(overrides, tmp_path):
    a, b = composed(["fused", "reference"], [*overrides, "seed=3"], tmp_path)
    assert to_yaml(a) == to_yaml(b)
    assert a.seed == 3
    a, b = composed(["cpu", "cpu,parallel.compute_dtype=bfloat16"], overrides, tmp_path)
    assert (a.device, b.device) == ("cpu", "cpu")
    assert (a.parallel.compute_dtype, b.parallel.compute_dtype) == ("auto", "bfloat16")


def test_one_process_without_caches_and_lists(overrides, tmp_path):
    (config,) = composed(["cpu"], [*overrides, "parallel=published"], tmp_path)
    parallel = config.parallel
    assert (parallel.kind, parallel.replicas, parallel.compile_backend) == ("single", 1, None)
    assert parallel.recompute == "full"
    assert config.objective.feature_cache is None
    assert config.dataset.quarantine is None


def test_folders_bring_configuration_and_weights(stage, tmp_path):
    a, b = composed([str(stage), str(stage.parent)], ["device=cpu"], tmp_path)
    assert (a.seed, a.device) == (5, "cpu")
    assert a.initialise_from == b.initialise_from == [str(stage / "model")]


def test_a_device_beside_a_folder_takes_its_run(stage, tmp_path):
    a, b = composed([str(stage), "cpu"], [], tmp_path)
    assert a.initialise_from == b.initialise_from == [str(stage / "model")]
    assert b.device == "cpu"


def test_an_experiment_comes_before_the_run_of_a_folder(stage, overrides, tmp_path):
    (config,) = composed([str(stage)], overrides, tmp_path)
    assert config.seed == 0
    assert config.initialise_from == [str(stage / "model")]


def test_a_model_alone_is_run_as_the_overrides_say(stage, overrides, tmp_path):
    alone = tmp_path / "exported"
    (stage / "model").rename(alone)
    a_tokenizer = read_config(alone / "model.yaml", "model").tokenizer.path
    (config,) = composed([str(alone)], [*overrides, "models=mllm_tiny", "seed=9"], tmp_path)
    assert config.seed == 9
    assert config.models._target_.endswith(".SEED")
    assert config.tokenizer.path == a_tokenizer
    assert config.initialise_from == [str(alone)]


def test_a_setting_that_is_none_is_refused(stage, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.lrr is not a setting"):
        composed([str(stage)], ["train.lrr=1"], tmp_path)
    with pytest.raises(ConfigError, match="beside the folder of a run"):
        composed([str(stage)], ["nothing.there=1"], tmp_path)
    with pytest.raises(ConfigError, match="parallel='fsdp2' was asked for"):
        composed([str(stage)], ["parallel=fsdp2"], tmp_path)


def test_an_experiment_of_stages_is_refused(digits, tmp_path):
    with pytest.raises(ConfigError, match="such as experiment=digits/vision"):
        composed(["cpu"], ["experiment=digits", f"world_dir={digits}"], tmp_path)


def test_what_a_record_must_have_in_common(overrides):
    a = counted_settings(load_config("training", overrides))
    other = [*overrides, "models.image_weight=2", "train.max_steps=7", "device=cpu"]
    b = counted_settings(load_config("training", other))
    assert differing_settings(a, a) == []
    assert differing_settings(a, b) == ["models.image_weight: 1.0, 2"]


def test_places_of_one_machine_do_not_count():
    assert differing_settings({"a": {"b": [1]}, "c": 2}, {"a": {"b": [1, 2]}}) == [
        "a.b: [1], [1, 2]",
        "c: 2, None",
    ]
    config = load_config("training", ["models.pretrained_model_name_path=somewhere"])
    assert "pretrained_model_name_path" not in counted_settings(config)["models"]
