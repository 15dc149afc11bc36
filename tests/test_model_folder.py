"""Model folders are whole, answer alone, and may be made of released weights."""

from pathlib import Path

import pytest
import torch

from mllm_npu.build import build_model, build_part
from mllm_npu.config import load_config
from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.model_folder import (
    find_model_folder,
    import_model,
    list_model_files,
    load_artist,
    load_engine,
    load_model,
    save_model_folder,
    world_of,
)
from mllm_npu.models.drawing import Detokenizer


def composed(world: Path, *overrides: str):
    return load_config("training", [f"world_dir={world}", *overrides])


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


@pytest.mark.parametrize("copy", [False, True])
def test_released_weights_become_a_model_folder(world, tmp_path, copy):
    model = build_model(composed(world))
    save_model_folder(model, composed(world), tmp_path / "released")
    weights = tmp_path / "released" / "model.safetensors"
    config = load_config("model", [f"world_dir={world}", f"weights=[{weights}]"])
    out = import_model(config, tmp_path / "imported", copy=copy)
    assert (out / "model.safetensors").exists() == copy
    loaded, _, again = load_model(out)
    assert torch.equal(loaded.projector.query, model.projector.query)
    assert (again.weights is None) == copy
    with pytest.raises(ConfigError, match="is there already"):
        import_model(config, out)


def test_an_import_that_fails_writes_nothing(world, tmp_path):
    config = load_config("model", [f"world_dir={world}"])
    with pytest.raises(ConfigError, match="weights=null"):
        import_model(config, tmp_path / "imported")
    config.weights = [str(tmp_path)]
    with pytest.raises(WeightsError):
        import_model(config, tmp_path / "imported")
    assert not (tmp_path / "imported").exists()


DETOKENIZER = (
    "models=detokenizer_tiny",
    "processor.num_read_tokens=4",
    "processor.num_drawn_tokens=16",
)


def test_a_detokenizer_draws_but_does_not_answer(world, tmp_path):
    config = composed(world, *DETOKENIZER)
    save_model_folder(build_model(config), config, tmp_path / "model")
    artist, _ = load_artist(tmp_path / "model", device="cpu")
    assert isinstance(artist, Detokenizer)
    assert not artist.training
    with pytest.raises(ConfigError, match="mllm-npu redraw"):
        load_engine(tmp_path / "model", device="cpu")


def test_a_reader_is_no_artist(world, tmp_path):
    config = composed(world, "models=mllm_tiny", "objective=comprehension")
    save_model_folder(build_model(config), config, tmp_path / "model")
    with pytest.raises(ConfigError, match="without an image decoder"):
        load_artist(tmp_path / "model", device="cpu")


def test_a_model_without_a_world_cannot_be_measured(world, tmp_path):
    config = composed(world, "models=mllm_tiny", "objective=comprehension")
    save_model_folder(build_model(config), config, tmp_path / "model")
    assert world_of(tmp_path / "model") == world
    file = tmp_path / "model" / "model.yaml"
    file.write_text(file.read_text().replace(f"world_dir: {world}", "world_dir: null"))
    with pytest.raises(ConfigError, match="mllm-npu redraw"):
        world_of(tmp_path / "model")


def test_answers_come_from_the_files_of_the_model_and_nothing_beside_them(world, tmp_path):
    config = composed(world)
    save_model_folder(build_model(config), config, tmp_path / "model")
    (tmp_path / "model" / "evaluation").mkdir()
    _, _, described = load_model(tmp_path / "model")
    files = list_model_files(tmp_path / "model", described)
    assert [path.relative_to(tmp_path / "model").as_posix() for path in files] == [
        *("model.yaml", "tokenizer", "model.safetensors")
    ]
    assert all(path.exists() for path in files)


def test_weights_that_lie_elsewhere_are_files_of_the_model_too(world, tmp_path):
    config = composed(world)
    save_model_folder(build_model(config), config, tmp_path / "model")
    described = load_config(
        "model", [f"weights=[{tmp_path}/model/model.safetensors]", f"world_dir={world}"]
    )
    files = list_model_files(tmp_path / "other", described)
    assert files[-1] == tmp_path / "model" / "model.safetensors"


def test_a_shipped_model_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = find_model_folder(Path("digits"))
    assert (folder / "model.yaml").is_file()
    with pytest.raises(ConfigError, match="comes with the package: digits"):
        find_model_folder(Path("digit"))


def test_weights_are_kept_in_fewer_bytes_when_that_is_asked(world, tmp_path):
    config = composed(world)
    save_model_folder(build_model(config), config, tmp_path / "model")
    engine, _ = load_engine(tmp_path / "model", device="cpu", quantize="bfloat16")
    kinds = {value.dtype for value in engine.model.language_model.parameters()}
    assert kinds == {torch.bfloat16}
    with pytest.raises(ConfigError, match="quantize='int3'"):
        load_engine(tmp_path / "model", device="cpu", quantize="int3")
