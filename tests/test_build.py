from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from mllm_npu.build import (
    build_model,
    build_options,
    build_part,
    build_tasks,
    first_weights,
    require_world,
)
from mllm_npu.config import load_config
from mllm_npu.errors import ConfigError, DataError, RequestError, WeightsError
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.models.mllm import SEED, GeneralizedMultimodalModel


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


def test_a_seed_may_lack_the_image_decoder_but_nothing_else(world):
    for without in ("models.image_decoder=null", "~models/image_decoder"):
        with torch.device("meta"):
            assert build_model(composed(world, without)).image_decoder is None
    with pytest.raises(ConfigError, match="output_projector"):
        build_model(
            composed(
                world,
                "~models.output_projector",
                "models.drawn_features.num_tokens=16",
                "models.image_decoder=null",
                "processor.num_drawn_tokens=0",
            )
        )


def test_weights_fill_a_model_that_was_composed_without_memory(world, tmp_path):
    config = composed(world, "models=mllm_tiny", "objective=comprehension")
    model = build_model(config)
    halves = {"a": {}, "b": {}}
    for number, (name, value) in enumerate(model.state_dict().items()):
        halves["ab"[number % 2]][name] = value
    for half, values in halves.items():
        save_file(
            {name: value.clone() for name, value in values.items()},
            tmp_path / f"{half}.safetensors",
        )
    filled = build_model(config, [tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    for name, value in filled.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    with pytest.raises(WeightsError, match="missing"):
        build_model(config, [tmp_path / "a.safetensors"])


def test_parts_may_start_fresh_where_the_weights_lack_them(world, tmp_path):
    config = composed(world, "models=mllm_tiny", "objective=comprehension")
    model = build_model(config)
    values = {n: v.clone() for n, v in model.state_dict().items() if not n.startswith("projector.")}
    save_file(values, tmp_path / "w.safetensors")
    weights = [tmp_path / "w.safetensors"]
    fresh = build_model(config, weights, ["projector"])
    assert not any(parameter.is_meta for parameter in fresh.parameters())
    assert torch.equal(fresh.patch_pos_embed, model.patch_pos_embed)
    assert not torch.equal(fresh.projector.mlp[1].weight, model.projector.mlp[1].weight)
    with pytest.raises(WeightsError, match=r"only vision_encoder may start fresh.*missing"):
        build_model(config, weights, ["vision_encoder"])
    seed = build_model(composed(world))
    values = {n: v.clone() for n, v in seed.state_dict().items() if "drawn_features" not in n}
    save_file(values, tmp_path / "seed.safetensors")
    fresh = build_model(composed(world), [tmp_path / "seed.safetensors"], ["drawn_features"])
    assert not fresh.drawn_features.mean.is_meta  # a part of buffers alone
    for name in ("projector.mlp", "nowhere"):
        with pytest.raises(ConfigError, match=f"fresh={name}"):
            build_model(config, weights, [name])


def test_where_a_run_starts_from(world, tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    assert first_weights(composed(world)) == []
    one = composed(world, f"initialise_from={tmp_path}/a")
    assert first_weights(one) == [tmp_path / "a"]
    two = composed(world, f"initialise_from=[{tmp_path}/a,{tmp_path}/b]")
    assert first_weights(two) == [tmp_path / "a", tmp_path / "b"]
    named = composed(
        world, f"initialise_from={tmp_path}/a", f"+models.pretrained_model_name_path={tmp_path}/b"
    )
    assert first_weights(named) == [tmp_path / "b"]
    with pytest.raises(ConfigError, match="gone"):
        first_weights(composed(world, f"initialise_from={tmp_path}/gone"))


def test_updates_go_to_the_part_the_recipe_names(world):
    config = composed(
        world,
        "+lora=language_model",
        "lora.part=image_decoder.unet",
        "lora.targets=['*attn2.to_k']",
    )
    model = build_model(config)
    recipe = build_part(config.lora)
    chosen = recipe.apply(recipe.part_of(model))
    assert chosen
    assert all(name.endswith("attn2.to_k") for name in chosen)
    config.lora.part = "nowhere"
    with pytest.raises(ConfigError, match="'nowhere', which SEED does not have"):
        build_part(config.lora).part_of(model)


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


def test_training_is_refused_on_a_half_made_world(world, tmp_path):
    (tmp_path / "world.json.partial").touch()
    with pytest.raises(DataError, match="not finished"):
        require_world(composed(tmp_path))
    assert require_world(composed(world)) is None


def test_tasks_get_what_they_ask_for_and_what_is_null_is_none(tmp_path):
    config = load_config(
        "evaluation", ["task=[mmlu,pope]", "task.mmlu.shots=2", f"data={tmp_path}"]
    )
    options = GenerationOptions(max_new_tokens=7)
    first, second = build_tasks(config, options=options, engine=object())
    assert (first.name, first.shots, first.data) == ("mmlu", 2, f"{tmp_path}/mmlu")
    assert second.name == "pope"
    config.task.mmlu = None
    assert [task.name for task in build_tasks(config, options=options)] == ["pope"]
    assert build_tasks(load_config("evaluation", []), options=options) == []


def test_a_task_that_cannot_be_built_is_a_configuration_error(tmp_path):
    config = load_config("evaluation", ["task=[mmlu]"])
    with pytest.raises(ConfigError, match=r"MMLU cannot be built: .*options"):
        build_tasks(config)


def test_an_option_of_a_task_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"task\.mmlu\.shot"):
        load_config("evaluation", ["task=[mmlu]", "task.mmlu.shot=2"])
    with pytest.raises(ConfigError, match=r"task\.mmlu\.by='guessing' was asked for"):
        load_config("evaluation", ["task=[mmlu]", "task.mmlu.by=guessing"])


OPTIONS = {"_target_": "mllm_npu.inference.engine.GenerationOptions", "max_new_tokens": 64}


def test_options_of_replies_are_checked():
    assert build_options({**OPTIONS, "guidance": 3}) == GenerationOptions(
        max_new_tokens=64, guidance=3
    )
    with pytest.raises(ConfigError, match=r"generation\.max_new_tokens='many' was asked for"):
        build_options({**OPTIONS, "max_new_tokens": "many"})
    with pytest.raises(ConfigError, match="max_tokens"):
        build_options({**OPTIONS, "max_tokens": 3})
    with pytest.raises(RequestError, match="temperature=-1"):
        build_options({**OPTIONS, "temperature": -1})
