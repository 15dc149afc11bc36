import pytest
import torch
from omegaconf import OmegaConf
from pretended import pretended_ranks
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import SiglipVisionConfig, SiglipVisionModel

from mllm_npu.build import build_part
from mllm_npu.composition import StartingValues, first_weights
from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.models.own_rows import own_rows
from mllm_npu.models.tiny import (
    LANGUAGE_CONFIGS,
    NUM_QUERIES,
    VISION_CONFIGS,
    tiny_language_model,
    tiny_mllm,
    tiny_vision_encoder,
)
from mllm_npu.models.weights import save_weights

ROOM = "mllm_npu.models"


def make_config(**changes):
    """The model of ``tiny_mllm`` with an untied head, as a configuration."""
    parts = {
        "language_model": {
            "_target_": f"{ROOM}.language_model.huggingface.HuggingFaceLanguageModel",
            "config": dict(LANGUAGE_CONFIGS["qwen3"]),
        },
        "vision_encoder": {
            "_target_": f"{ROOM}.vision_encoder.huggingface.HuggingFaceVisionEncoder",
            "config": dict(VISION_CONFIGS["siglip"]),
        },
        "projector": {
            "_target_": f"{ROOM}.projector.attention_resampler.AttentionResampler",
            "input_dim": 16,
            "output_dim": 32,
            "num_queries": NUM_QUERIES,
        },
    }
    for name, change in changes.items():
        parts[name] = {k: v for k, v in {**parts[name], **change}.items() if v is not None}
    target = f"{ROOM}.mllm.GeneralizedMultimodalModel"
    return OmegaConf.create({"models": {"_target_": target, **parts}, "lora": None})


def own_values(part, folder):
    """Settings of a part that takes the values of a folder of its own."""
    return {"path": str(folder), "config": None, **part}


@pytest.fixture
def language(tmp_path):
    torch.manual_seed(11)
    model = tiny_language_model("qwen3")
    model.causal_lm.save_pretrained(tmp_path / "language")
    return tmp_path / "language", model


@pytest.fixture
def vision(tmp_path):
    torch.manual_seed(12)
    model = tiny_vision_encoder("siglip")
    model.vision_model.save_pretrained(tmp_path / "vision")
    return tmp_path / "vision", model


def hollow_parts(model):
    return {name.split(".")[0] for name, value in model.state_dict().items() if value.is_meta}


def assert_equal(module, expected):
    values = module.state_dict()
    for name, value in expected.state_dict().items():
        assert torch.equal(values[name], value), name


def test_without_weights_everything_starts_at_random_and_nothing_is_read():
    values = StartingValues(make_config())
    model = values.compose(build_part)
    assert (values.whole, values.sources, hollow_parts(model)) == (False, [], set())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    said = []
    values.fill(model, say=said.append)
    assert said == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_of_the_whole_fill_every_part_but_the_fresh_ones(tmp_path):
    torch.manual_seed(3)
    saved = tiny_mllm(language="qwen3")
    save_weights(tmp_path / "saved", saved)
    config = make_config()
    config.models.patch_positions = True
    values = StartingValues(config, weights=[tmp_path / "saved"])
    model = values.compose(build_part)
    assert all(value.is_meta for value in model.state_dict().values())
    said = []
    values.fill(model, say=said.append)
    assert_equal(model, saved)
    assert said[0].startswith("weights: ")
    assert "0 missing" in said[0]

    thin = load_file(tmp_path / "saved" / "model.safetensors")
    save_file(
        {n: v for n, v in thin.items() if "projector" not in n}, tmp_path / "thin.safetensors"
    )
    values = StartingValues(config, weights=[tmp_path / "thin.safetensors"], fresh=["projector"])
    model = values.compose(build_part)
    assert "projector" not in hollow_parts(model)
    fresh = {name: value.clone() for name, value in model.projector.state_dict().items()}
    values.fill(model)
    assert hollow_parts(model) == set()
    assert all(torch.equal(v, fresh[name]) for name, v in model.projector.state_dict().items())
    assert_equal(model.language_model, saved.language_model)
    values = StartingValues(config, weights=[tmp_path / "thin.safetensors"])
    with pytest.raises(WeightsError, match="missing"):
        values.fill(values.compose(build_part))


def test_a_part_with_a_folder_of_its_own_takes_its_values_and_the_rest_is_random(language):
    folder, expected = language
    values = StartingValues(make_config(language_model=own_values({}, folder)))
    assert values.sources == [str(folder)]
    model = values.compose(build_part)
    assert hollow_parts(model) == {"language_model"}
    projector = {name: value.clone() for name, value in model.projector.state_dict().items()}
    values.fill(model)
    assert hollow_parts(model) == set()
    assert_equal(model.language_model, expected)
    assert all(torch.equal(v, projector[n]) for n, v in model.projector.state_dict().items())
    model.language_model(
        torch.randn(5, 32), position_ids_T=torch.arange(5), sequence_ends=(5,)
    ).isfinite()


def test_several_parts_take_their_own_folders(language, vision):
    values = StartingValues(
        make_config(
            language_model=own_values({}, language[0]), vision_encoder=own_values({}, vision[0])
        )
    )
    model = values.compose(build_part)
    assert hollow_parts(model) == {"language_model", "vision_encoder"}
    values.fill(model)
    assert_equal(model.language_model, language[1])
    assert_equal(model.vision_encoder, vision[1])


def test_a_vocabulary_grows_while_its_values_are_read(language):
    folder, expected = language
    grown = own_values({"vocab_size": 70}, folder)
    values = StartingValues(make_config(language_model=grown))
    model = values.compose(build_part)
    values.fill(model)
    expected.resize_vocabulary(70)
    assert_equal(model.language_model, expected)
    assert model.language_model.vocab_size == 70


def test_rows_are_not_made_up_where_weights_are_those_of_the_whole_model(tmp_path):
    save_weights(tmp_path, tiny_mllm(language="qwen3"))
    config = make_config(language_model={"vocab_size": 70})
    config.models.patch_positions = True
    values = StartingValues(config, weights=[tmp_path])
    with pytest.raises(WeightsError, match="vocabularies differ by 6 rows"):
        values.fill(values.compose(build_part))


def test_values_that_come_from_elsewhere_need_not_be_in_the_weights(tmp_path, language):
    """As when a checkpoint holds what was trained and the weights what was not."""
    values = StartingValues(make_config(language_model=own_values({}, language[0])))
    with torch.device("meta"):
        model = values.compose(build_part)
    with pytest.raises(WeightsError, match="missing"):
        values.fill(model)
    given = [name for name in model.state_dict() if not name.startswith("language_model.")]
    values.fill(model, given=given)
    assert_equal(model.language_model, language[1])
    assert hollow_parts(model) == {"projector", "vision_encoder"}


def test_a_folder_may_hold_more_than_its_part(tmp_path):
    """Such as the pooling head of a vision model, which reads pictures as a whole."""
    settings = {k: v for k, v in VISION_CONFIGS["siglip"].items() if k != "model_type"}
    pooling = SiglipVisionModel(SiglipVisionConfig(**settings))
    pooling.save_pretrained(tmp_path / "vision")
    values = StartingValues(make_config(vision_encoder=own_values({}, tmp_path / "vision")))
    model, said = values.compose(build_part), []
    values.fill(model, say=said.append)
    norm = model.vision_encoder.vision_model.post_layernorm.weight
    assert torch.equal(norm, pooling.post_layernorm.weight)
    assert hollow_parts(model) == set()
    assert "unexpected (" in said[0]


def test_a_folder_of_a_part_that_lacks_values_is_refused(language):
    folder, _ = language
    (file,) = folder.glob("*.safetensors")
    stored = load_file(file)
    stored.pop("model.norm.weight")
    save_file(stored, file, metadata={"format": "pt"})
    values = StartingValues(make_config(language_model=own_values({}, folder)))
    with pytest.raises(WeightsError, match=r"1 missing|missing \(.*model\.norm\.weight"):
        values.fill(values.compose(build_part))


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_each_rank_fills_its_rows_and_keeps_those_drawn_at_random(language, rank):
    folder, expected = language
    with pretended_ranks(rank, 3) as mesh:
        values = StartingValues(make_config(language_model=own_values({"vocab_size": 70}, folder)))
        torch.manual_seed(5)
        model = values.compose(build_part)
        projector = {name: value.clone() for name, value in model.projector.state_dict().items()}
        for block in model.language_model.sharding_units():
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        values.fill(model, device=torch.device("cpu"))
        assert hollow_parts(model) == set()
        expected.resize_vocabulary(70)
        whole = {
            **{f"language_model.{name}": v for name, v in expected.state_dict().items()},
            **{f"projector.{name}": v for name, v in projector.items()},
        }
        slots = model.state_dict()
        for name, value in whole.items():
            slot = slots[name]
            if isinstance(slot, DTensor):
                begin, end = own_rows(slot)
                slot, value = slot.to_local(), value[begin:end]
            assert torch.equal(slot, value), name


def test_a_fresh_part_that_is_not_there_is_refused(tmp_path):
    for name in ("resampler", "projector.layers", "language_model.config"):
        with pytest.raises(ConfigError, match=f"fresh={name} was asked for"):
            StartingValues(make_config(), weights=[tmp_path], fresh=[name])


def test_a_run_starts_from_what_the_model_names_before_what_the_run_names(tmp_path):
    for name in ("model", "run"):
        (tmp_path / name).mkdir()
    config = make_config()
    config.initialise_from = None
    assert first_weights(config) == []
    config.initialise_from = [str(tmp_path / "run"), f"{tmp_path / 'run'}@projector"]
    assert first_weights(config) == [tmp_path / "run", tmp_path / "run@projector"]
    config.models.pretrained_model_name_path = str(tmp_path / "model")
    assert first_weights(config) == [tmp_path / "model"]
    config.models.pretrained_model_name_path = str(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"gone was asked for and is not there"):
        first_weights(config)
