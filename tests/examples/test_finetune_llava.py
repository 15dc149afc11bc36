"""A tiny random LLaVA goes through the script and comes back changed where it was trained."""

import importlib.util
import json

import pytest
from PIL import Image
from transformers import LlavaForConditionalGeneration

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llava(root, tmp_path_factory):
    """A folder that transformers has written."""
    spec = importlib.util.spec_from_file_location("hub_models", root / "tests/zoo/conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("llava")
    module.make_hub_model(module.KINDS["llava with llama"], folder)
    return folder


@pytest.fixture
def conversations(tmp_path):
    (tmp_path / "pictures").mkdir()
    rows = []
    for number, colour in enumerate(["red", "green", "blue", "white"]):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "pictures" / f"{number}.jpg")
        said = [("human", "<image>\nwhat is shown?"), ("gpt", "a cat"), ("human", "what more?")]
        said += [("gpt", "a dog")]
        turns = [{"from": who, "value": text} for who, text in said]
        rows.append({"id": str(number), "image": f"{number}.jpg", "conversations": turns})
    file = tmp_path / "llava.json"
    file.write_text(json.dumps(rows))
    return file


def test_it_comes_back_in_its_own_layout(run_example, quiet, llava, conversations, tmp_path):
    out = tmp_path / "out"
    images = conversations.parent / "pictures"
    small = ("lora.rank=2", "dataset.num_workers=0", "device=cpu", "train.accumulate=1")
    said = run_example(
        *("finetune_llava", llava, conversations, "--images", images, "--steps", 3, "--out", out),
        *(*quiet, *small, "train.schedule.warmup_steps=1", "train.optimizer.lr=0.05"),
    )
    assert "4 conversations, refused: none" in said
    assert f"for transformers and vLLM: {out / 'exported'}" in said
    load = LlavaForConditionalGeneration.from_pretrained
    before, after = load(llava).state_dict(), load(out / "exported").state_dict()
    assert before.keys() == after.keys()
    moved = {name for name in after if not before[name].equal(after[name])}
    assert any("language_model" in name and "q_proj" in name for name in moved)
    assert any("projector" in name for name in moved)
    assert not any("vision_tower" in name for name in moved)
    kept = json.loads((out / "exported" / "config.json").read_text())
    assert kept["model_type"] == "llava"
