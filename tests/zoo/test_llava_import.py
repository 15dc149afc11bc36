"""An imported LLaVA gives the logits and the words that transformers gives."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from mllm_npu.data.collate import BlankTile, collate
from mllm_npu.inference.engine import Engine, GenerationOptions
from mllm_npu.inference.events import collect_reply
from mllm_npu.inference.live_engine import LiveEngine
from mllm_npu.inference.row_maker import _find_stop_ids as find_stop_ids
from mllm_npu.model_folder import load_model
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn
from mllm_npu.zoo.llava_import import import_llava

TOLERANCE = 1e-4
KINDS = (
    "llava with llama",
    "llava_next with llama",
    "llava_next with mistral",
    "llava_next with qwen2",
    "llava_onevision with qwen2",
)
PICTURES = (
    (),
    ("square",),
    ("very wide",),
    ("very tall",),
    ("tiny",),
    ("larger than the grid",),
    ("odd",),
    ("square", "very wide"),
    ("odd", "very tall", "tiny"),
)


def ask(text, pictures):
    parts = (*(ReadImage(picture=picture) for picture in pictures), Text(text=text))
    return Conversation(turns=(Turn(role="user", parts=parts),))


@pytest.fixture(scope="module")
def imported(hub_models, tmp_path_factory):
    """Each model once more, as it is here."""
    made = {}

    def find(name):
        if name not in made:
            out = tmp_path_factory.mktemp("imported") / "model"
            import_llava(hub_models(name).folder, out)
            made[name] = (out, *load_model(out)[:2])
        return made[name]

    return find


@torch.no_grad()
def logits(model, processor, conversation):
    sample = processor.encode(conversation, reply=True)
    batch = collate([sample], blank=BlankTile.of(processor))
    hidden = model.eval().hidden(batch)[: sample.num_tokens]
    return sample.input_ids, model.language_model.logits(hidden)


def test_every_kind_and_size_is_looked_at(kinds, pictures):
    assert set(KINDS) == set(kinds)
    assert {name for names in PICTURES for name in names} == set(pictures)


@pytest.mark.parametrize("sizes", PICTURES, ids=lambda sizes: ", ".join(sizes) or "none")
@pytest.mark.parametrize("name", KINDS)
def test_logits_are_those_of_transformers(
    name, sizes, hub_models, imported, pictures, note_deviation
):
    _, model, processor = imported(name)
    given = [pictures[size] for size in sizes]
    expected_ids = hub_models(name).inputs("what is this?", given)["input_ids"][0]
    ids, found = logits(model, processor, ask("what is this?", given))
    assert torch.equal(ids, expected_ids)
    expected = hub_models(name).logits("what is this?", given)
    deviation = float((found - expected).abs().max())
    note_deviation(name, deviation)
    assert deviation <= TOLERANCE
    assert expected.std() > 0.1


def generate(hub_model, processor, text, given, stop_ids):
    """What transformers writes, greedily, of what may be written here."""
    known, rows = len(processor.tokenizer), hub_model.model.config.text_config.vocab_size
    banned = [*processor.image_ids.slots, processor.pad_id, *range(known, rows)]
    inputs = hub_model.inputs(text, given)
    ids = hub_model.model.generate(
        **inputs,
        max_new_tokens=16,
        do_sample=False,
        suppress_tokens=banned,
        eos_token_id=stop_ids,
        pad_token_id=processor.pad_id,
    )[0, inputs["input_ids"].shape[1] :].tolist()
    ended = next((place for place, number in enumerate(ids) if number in stop_ids), len(ids))
    return processor.decode_text(ids[:ended])


@pytest.mark.parametrize("name", KINDS)
def test_the_engine_writes_what_transformers_writes(name, hub_models, imported, pictures):
    _, model, processor = imported(name)
    engine = Engine(model=model, processor=processor, device="cpu")
    stop_ids = sorted(find_stop_ids(processor))
    asked = [
        ("what is this?", [pictures["odd"]]),
        ("which digit is this?", [pictures["very wide"], pictures["tiny"]]),
        ("a cat, and a dog.", []),
    ]
    found = engine.reply_many(
        [ask(text, given) for text, given in asked], GenerationOptions(max_new_tokens=16)
    )
    expected = [
        generate(hub_models(name), processor, text, given, stop_ids) for text, given in asked
    ]
    assert [reply.text for reply in found] == expected
    assert any(expected)


def test_another_picture_changes_what_is_said(hub_models, imported, pictures):
    _, model, processor = imported("llava_onevision with qwen2")
    _, first = logits(model, processor, ask("what is this?", [pictures["odd"]]))
    turned = pictures["odd"].transpose(Image.Transpose.ROTATE_180)
    _, second = logits(model, processor, ask("what is this?", [turned]))
    assert float((first[-1] - second[-1]).abs().max()) > 0.01


@pytest.mark.parametrize("name", ["llava with llama", "llava_onevision with qwen2"])
def test_a_service_says_the_same_and_knows_pictures_that_come_again(name, imported, pictures):
    """Beginnings of prompts and tiles are kept; joined tokens are told apart by what they are."""
    out, model, processor = imported(name)
    options = GenerationOptions(max_new_tokens=12)
    asked = [
        ask(text, [pictures[size]])
        for size, text in (
            ("larger than the grid", "what is this?"),
            ("larger than the grid", "which digit is this?"),
            ("odd", "what is this?"),
            ("larger than the grid", "what is this?"),
        )
    ]
    model, processor, _ = load_model(out)
    expected = Engine(model=model, processor=processor, device="cpu").reply_many(asked, options)
    with LiveEngine(model=model, processor=processor, device="cpu") as engine:
        found = [collect_reply(engine.submit(question, options)) for question in asked]
        stats = engine.stats()
    assert [reply.text for reply in found] == [reply.text for reply in expected]
    assert stats.prefix_hits >= 2
    assert stats.tile_hits >= 1


def test_texts_are_weighed_behind_joined_pictures(imported, pictures):
    """As the logits of the whole say."""
    _, model, processor = imported("llava_next with qwen2")
    question = ask("what is this?", [pictures["odd"]])
    engine = Engine(model=model, processor=processor, device="cpu")
    ((_, weighed),) = engine.weigh([(question, ("a cat", "a dog"))])
    for text, likelihood in zip(("a cat", "a dog"), weighed, strict=True):
        ids = processor.encode_text(text)
        sample = processor.encode(question, reply=True)
        whole = dataclasses.replace(
            sample,
            input_ids=torch.cat([sample.input_ids, torch.tensor(ids)]),
            labels=torch.full((sample.num_tokens + len(ids),), -100),
        )
        batch = collate([whole], blank=BlankTile.of(processor))
        with torch.no_grad():
            scores = model.language_model.logits(model.hidden(batch)).log_softmax(-1)
        places = range(sample.num_tokens - 1, sample.num_tokens + len(ids) - 1)
        expected = sum(
            float(scores[place, number]) for place, number in zip(places, ids, strict=True)
        )
        assert likelihood.logprob == pytest.approx(expected, abs=1e-3)


def test_pictures_that_are_made_square_first(kinds, make_hub, pictures, tmp_path):
    """As LLaVA-1.5 was trained: the whole picture on its mean colour."""
    given = make_hub(kinds["llava with llama"], tmp_path / "hub", pixels={"do_pad": True})
    import_llava(given.folder, tmp_path / "ours")
    model, processor, _ = load_model(tmp_path / "ours")
    assert processor.any_resolution.fit == "pad"
    for size in ("odd", "very wide", "very tall", "tiny", "square"):
        _, found = logits(model, processor, ask("what is this?", [pictures[size]]))
        expected = given.logits("what is this?", [pictures[size]])
        assert float((found - expected).abs().max()) <= TOLERANCE


REAL = {
    "llava_next with mistral": {
        "tile": 336,
        "patch": 14,
        "grids": ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3)),
    },
    "llava_onevision with qwen2": {
        "tile": 384,
        "patch": 14,
        "most": 9,
        "grids": tuple((rows, columns) for rows in range(1, 7) for columns in range(1, 7)),
    },
}
"""Tiles, patches and grids of the releases; the models behind them stay tiny."""


@pytest.mark.parametrize("name", REAL)
def test_pictures_of_real_sizes_are_cut_and_joined_as_released(
    name, kinds, make_hub, note_deviation, tmp_path
):
    given = make_hub(dataclasses.replace(kinds[name], **REAL[name]), tmp_path / "hub")
    import_llava(given.folder, tmp_path / "ours")
    model, processor, _ = load_model(tmp_path / "ours")
    for size in ((1000, 667), (2600, 1900), (300, 2000)):
        levels = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        picture = Image.fromarray(levels)
        ids, found = logits(model, processor, ask("what is this?", [picture]))
        assert torch.equal(ids, given.inputs("what is this?", [picture])["input_ids"][0])
        deviation = float((found - given.logits("what is this?", [picture])).abs().max())
        note_deviation(f"{name}, tiles as released", deviation)
        assert deviation <= TOLERANCE
