import json

import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from mllm_npu.errors import ConfigError, WeightsError
from mllm_npu.evaluate.clip_score import ClipScore

LETTERS = [
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz"),
]
WORDS = ["<|startoftext|>", "<|endoftext|>", *LETTERS]
TEXT = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


def save_tokenizer(folder):
    tokenizer = CLIPTokenizer(vocab={word: n for n, word in enumerate(WORDS)}, merges=[])
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A random CLIP with all the files of a release."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("clip")
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(text_config={**TEXT, **ends}, vision_config=VISION, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    CLIPImageProcessorPil(**size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory):
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("siglip")
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "projection_size": 16}
    config = SiglipConfig(text_config={**TEXT, **ends}, vision_config=VISION)
    SiglipModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    # It knows small letters only, and leaves it to others to make them small.
    described = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**described, "normalizer": None}))
    SiglipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


PICTURES = [Image.new("RGB", (20, 30), color) for color in ("red", "green", "blue", "white")]
TEXTS = ["a red cup", "b", "a dog and a cat and a cow", "x y z"]


def by_hand(model, tokenizer, processor, text, picture, *, fills):
    """One pair alone, by the calls of transformers' documentation."""
    filled = {"padding": "max_length"} if fills else {}
    ids = tokenizer(text, truncation=True, max_length=12, return_tensors="pt", **filled)
    pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        spoken = model.get_text_features(input_ids=ids["input_ids"]).pooler_output[0]
        seen = model.get_image_features(pixel_values=pixels).pooler_output[0]
    return float(100 * (spoken @ seen) / (spoken.norm() * seen.norm()))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_the_score_is_a_hundred_times_the_cosine(family, batch, clip_folder, siglip_folder):
    folder = clip_folder if family == "clip" else siglip_folder
    kinds = {
        "clip": (CLIPModel, CLIPImageProcessorPil),
        "siglip": (SiglipModel, SiglipImageProcessorPil),
    }
    model_class, processor_class = kinds[family]
    model = model_class.from_pretrained(folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    processor = processor_class.from_pretrained(folder)
    wanted = [
        by_hand(model, tokenizer, processor, text, picture, fills=family == "siglip")
        for text, picture in zip(TEXTS, PICTURES, strict=True)
    ]
    assert min(wanted) < 0 < max(wanted)
    found = ClipScore(path=str(folder), batch=batch).score(TEXTS, PICTURES)
    assert found == pytest.approx([max(0.0, value) for value in wanted], abs=1e-3)


def test_siglip_reads_lower_case(siglip_folder):
    score = ClipScore(path=str(siglip_folder))
    found = [score.score([text] * 4, PICTURES) for text in ("a red cup", "A Red CUP", "a dog")]
    assert found[0] == found[1] != found[2]


def test_nothing_has_no_score(clip_folder):
    assert ClipScore(path=str(clip_folder)).score([], []) == []


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json"):
        ClipScore(path=str(tmp_path))


def test_another_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConfigError, match=r"model_type='llama'.*it takes clip, siglip"):
        ClipScore(path=str(tmp_path))


def test_files_that_are_missing_are_named(clip_folder, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    with pytest.raises(ConfigError, match=r"no preprocessor_config\.json.*Copy the file"):
        ClipScore(path=str(tmp_path))
    name = "preprocessor_config.json"
    (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    with pytest.raises(WeightsError):
        ClipScore(path=str(tmp_path))
