"""Every recipe at its smallest: where it starts, what it trains, and that its folder answers."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mllm_npu.cli import main
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.data.worlds.scenes import make_scenes

STEPS = 6

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    make_digits(folder / "digits", scale=0.03)
    make_scenes(folder / "scenes", scale=0.01)
    return folder


def train(place: Path, experiment: str, *more: str, steps: int = STEPS) -> Path:
    """Train an experiment; gives the folder of its run."""
    world = experiment.replace("_", "/").split("/")[0]
    settings = [
        f"world_dir={place / world}",
        f"output_dir={place / 'runs'}",
        f"train.max_steps={steps}",
        "train.schedule.warmup_steps=1",
        "train.log_every=1",
        "train.recorder.progress=false",
        "dataset.tokens_per_pack=640",
        "threads=1",
    ]
    assert main(["train", f"experiment={experiment}", *settings, *more]) == 0
    return place / "runs" / world


def losses(stage: Path) -> list[float]:
    lines = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def weights(stage: Path) -> dict[str, torch.Tensor]:
    return load_file(stage / "model" / "model.safetensors")


def moved(before: Path, after: Path) -> set[str]:
    """Names whose values differ; both folders hold the same names."""
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    return {name for name in new if not torch.equal(old[name], new[name])}


def parts(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.fixture(scope="module")
def reader(place):
    """The two stages of LLaVA, and what comes before them."""
    return train(place, "digits_llava")


@pytest.fixture(scope="module")
def drawer(place):
    """A model that reads and draws; what it knows is not asked."""
    return train(place, "digits/mllm", "initialise_from=null")


def answer(stage: Path, tmp_path: Path, capsys, *typed: str) -> dict:
    capsys.readouterr()
    given = ["--max-new-tokens", "4", "--out", str(tmp_path / "out.png"), "--json"]
    assert main(["generate", str(stage), *typed, *given]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("stage", ["vision", "text", "align", "instruct"])
def test_every_stage_of_llava_learns(reader, stage):
    found = losses(reader / stage)
    assert len(found) == STEPS
    assert found[-1] < found[0]


def test_alignment_takes_both_models_and_trains_the_projector_alone(reader):
    assert parts(moved(reader / "text", reader / "align")) == {"vision_encoder", "projector"}
    seen, aligned = weights(reader / "vision"), weights(reader / "align")
    names = [name for name in aligned if name.startswith("vision_encoder.")]
    assert all(torch.equal(seen[name], aligned[name]) for name in names)


def test_instructions_leave_the_encoder_as_it_is(reader):
    found = parts(moved(reader / "align", reader / "instruct"))
    assert found == {"projector", "language_model", "patch_pos_embed"}


def test_updates_of_two_parts_are_trained_and_folded_in(place, reader, tmp_path, capsys):
    train(place, "digits/lora_vision", "lora.recipes.vision_encoder.dora=true")
    found = moved(reader / "instruct", reader / "lora_vision")
    assert parts(found) == {"projector", "language_model", "vision_encoder"}
    adapted = {name for name in found if not name.startswith("projector.")}
    assert all(name.endswith(("_proj.weight", "fc1.weight", "fc2.weight")) for name in adapted)
    Image.new("L", (16, 16), 90).save(tmp_path / "in.png")
    asked = ["Which digit is this?", "--image", str(tmp_path / "in.png")]
    said = answer(reader / "lora_vision", tmp_path, capsys, *asked)
    assert said["finish_reason"] in {"stop", "length"}


@pytest.mark.parametrize("recipe", ["lora", "dora"])
def test_updates_of_the_language_model_alone(place, drawer, recipe):
    train(place, f"digits/{recipe}")
    found = moved(drawer / "mllm", drawer / recipe)
    assert parts(found) == {"projector", "language_model", "output_projector"}
    assert all(n.endswith("_proj.weight") for n in found if n.startswith("language_model."))
    assert "lora: null" in (drawer / recipe / "model" / "model.yaml").read_text()


def test_fine_tuning_starts_from_the_named_weights_in_its_own_format(
    place, drawer, tmp_path, capsys
):
    train(place, "digits/sft")
    assert "vision_encoder" not in parts(moved(drawer / "mllm", drawer / "sft"))
    assert losses(drawer / "sft")[-1] < losses(drawer / "sft")[0]
    described = (drawer / "sft" / "model" / "model.yaml").read_text()
    assert "user_prefix: '[INST] '" in described
    assert "pretrained_model_name_path" not in described
    assert answer(drawer / "sft", tmp_path, capsys, "Draw a seven.", "--draw")["pictures"]


def test_weights_named_by_the_model_come_before_those_of_the_stage(place, drawer):
    """Nothing is trained at a rate of 0, so what is saved is what it started from."""
    named = f"models.pretrained_model_name_path={drawer}/mllm/model"
    still = ["train.optimizer.lr=0", "train.optimizer.weight_decay=0", "stage=still"]
    train(place, "digits/sft", named, "initialise_from=nowhere", *still, steps=1)
    assert moved(drawer / "mllm", drawer / "still") == set()


def test_fine_tuning_to_edit(place, tmp_path, capsys):
    run = train(place, "scenes/mllm", "initialise_from=null", steps=2)
    named = f"models.pretrained_model_name_path={run}/mllm/model"
    train(place, "scenes/edit_sft", named)
    found = parts(moved(run / "mllm", run / "edit_sft"))
    assert {"language_model", "projector", "output_projector"} <= found
    assert not found & {"vision_encoder", "image_decoder"}
    assert losses(run / "edit_sft")[-1] < losses(run / "edit_sft")[0]
    Image.new("RGB", (32, 32), "red").save(tmp_path / "in.png")
    asked = ["Make it blue.", "--image", str(tmp_path / "in.png"), "--draw"]
    assert answer(run / "edit_sft", tmp_path, capsys, *asked)["pictures"]
