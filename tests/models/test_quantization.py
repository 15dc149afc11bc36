"""Weights in fewer bytes answer as before; what cannot be quantised is refused with advice."""

import importlib
import importlib.util

import pytest
import torch
from torch import nn

from mllm_npu.errors import ConfigError
from mllm_npu.inference.live_engine import LiveEngine
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.inference.packed_linear import pack_linear, unpack_linear
from mllm_npu.model_folder import load_engine, load_model
from mllm_npu.models.quantization import quantize_model, weights_bytes
from mllm_npu.processing.conversation import ask
from mllm_npu.shipped import SHIPPED_FOLDER

HAS_TORCHAO = importlib.util.find_spec("torchao") is not None
needs_torchao = pytest.mark.skipif(not HAS_TORCHAO, reason="torchao is not installed")
WAYS = ["bfloat16", "float16", pytest.param("int8", marks=needs_torchao)]
OPTIONS = GenerationOptions(max_new_tokens=16)
DIGITS = SHIPPED_FOLDER / "digits"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def whole():
    """The digits model as it is, what it draws, and how it reads that."""
    engine, _ = load_engine(DIGITS, "cpu")
    drawn = engine.reply_many([ask(f"Draw a {name}.", []) for name in NAMES], OPTIONS)
    pictures = [reply.pictures[0] for reply in drawn]
    return engine, pictures, read(engine, pictures)


def read(engine, pictures):
    questions = [ask("Which digit is this?", [picture]) for picture in pictures]
    return [reply.text for reply in engine.reply_many(questions, OPTIONS)]


def scores(model):
    """What the language model says of every word after a few, float32 [T, W]."""
    language = model.language_model
    ids = torch.arange(3, 43)
    with torch.inference_mode():
        hidden = language(language.embed(ids), position_ids_T=torch.arange(40), sequence_ends=(40,))
        return language.logits(hidden).float()


@pytest.mark.parametrize("way", WAYS)
def test_it_answers_and_draws_as_before(whole, way):
    plain, pictures, answers = whole
    engine, _ = load_engine(DIGITS, "cpu", quantize=way)
    assert read(engine, pictures) == answers
    drawn = engine.reply_many([ask(f"Draw a {name}.", []) for name in NAMES], OPTIONS)
    seen = read(plain, [reply.pictures[0] for reply in drawn])
    right = [name in text for name, text in zip(NAMES, seen, strict=True)]
    assert sum(right) >= 9, seen


@pytest.mark.parametrize(
    ("way", "room"),
    [("bfloat16", 0.4), ("float16", 0.05), pytest.param("int8", 0.4, marks=needs_torchao)],
)
def test_scores_are_close_and_not_the_same(whole, way, room):
    """Scores of this model lie between -20 and 20; the room is what one word's may move."""
    model = quantize_model(load_model(DIGITS)[0].eval(), way)
    before, after = scores(whole[0].model), scores(model)
    assert 0 < (before - after).abs().max() <= room
    same = before.argmax(-1) == after.argmax(-1)
    assert same.float().mean() >= 0.95


@pytest.mark.parametrize("way", WAYS)
def test_it_takes_fewer_bytes(whole, way):
    model = quantize_model(load_model(DIGITS)[0], way)
    assert weights_bytes(model) <= 0.65 * weights_bytes(whole[0].model)


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_is_still_sent_through_encoder_and_decoder(whole, way):
    _, pictures, _ = whole
    engine, _ = load_engine(DIGITS, "cpu", quantize=way)
    assert read(whole[0], engine.redraw(pictures[7:8], OPTIONS)) == whole[2][7:8]


@needs_torchao
def test_quantised_layers_are_left_alone_when_others_are_packed(whole):
    """The engine that serves lays weights out anew; a quantised one has no plain values."""
    engine, _ = load_engine(DIGITS, "cpu", quantize="int8")
    quantised = [
        layer
        for layer in engine.model.modules()
        if isinstance(layer, nn.Linear) and type(layer.weight) is not nn.Parameter
    ]
    kinds = list(map(type, quantised))
    pack_linear(engine.model)
    assert kinds
    assert list(map(type, quantised)) == kinds
    unpack_linear(engine.model)
    with LiveEngine(model=engine.model, processor=engine.processor, device="cpu") as live:
        question = ask("Which digit is this?", whole[1][3:4])
        said = "".join(getattr(event, "text", "") for event in live.submit(question, OPTIONS))
    assert said == whole[2][3]


@needs_torchao
def test_the_table_of_words_and_the_head_stay_whole():
    model = quantize_model(load_model(DIGITS)[0], "int8")
    language = model.language_model.causal_lm
    assert type(language.get_input_embeddings().weight) is nn.Parameter
    assert type(language.get_output_embeddings().weight) is nn.Parameter
    matrices = [
        layer.weight
        for layer in model.language_model.modules()
        if isinstance(layer, nn.Linear) and layer is not language.get_output_embeddings()
    ]
    assert matrices
    assert all(type(weight) is not nn.Parameter for weight in matrices)
    assert type(model.projector.query) is nn.Parameter


def test_bytes_count_shared_values_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    assert weights_bytes(model) == 2 * 4 * 4 * 4
    model[1].weight = model[0].weight
    assert weights_bytes(model) == 4 * 4 * 4


def test_another_way_lists_the_known():
    with pytest.raises(ConfigError, match="Give one of bfloat16, float16, int8"):
        quantize_model(nn.Linear(2, 2), "int3")


@needs_torchao
def test_a_model_without_matrices_is_refused():
    with pytest.raises(ConfigError, match="no linear layers in language_model or vision_encoder"):
        quantize_model(nn.Linear(2, 2), "int8")


def test_without_the_library_it_says_what_to_install(monkeypatch):
    plain = importlib.import_module

    def missing(name, *rest):
        if name.startswith("torchao"):
            raise ModuleNotFoundError("No module named 'torchao'")
        return plain(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install 'mllm-npu\[quant\]'"):
        quantize_model(nn.Linear(2, 2), "int8")
