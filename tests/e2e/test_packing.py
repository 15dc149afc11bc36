"""Packing changes nothing: from conversations through collate to losses and gradients."""

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mllm_npu.data.collate import BlankTile, collate
from mllm_npu.models.tiny import LANGUAGE_CONFIGS, NUM_QUERIES, TILE_SIZE, tiny_seed
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage, Text, Turn
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def processor():
    tokenizer = train_tokenizer(["which digit is this? draw a seven."] * 5, vocab_size=280)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=NUM_QUERIES, num_locations=0))
    return Processor(
        tokenizer=tokenizer,
        any_resolution=AnyResolution(
            grids=["1x1", "2x1", "3x1"], tile_size=TILE_SIZE, repeat_single_tile=False
        ),
        chat_template=ChatTemplate(),
        num_read_tokens=NUM_QUERIES,
        num_drawn_tokens=NUM_QUERIES,
        max_tokens=200,
    )


def picture(seed, width=TILE_SIZE):
    noise = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (TILE_SIZE, width, 3), generator=noise, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def talk(asked, answered):
    turns = (
        Turn(role="user", parts=asked),
        Turn(role="assistant", parts=answered, learn=True),
    )
    return Conversation(turns=turns, source="talks")


def document(text):
    return Conversation(
        turns=(Turn(role="document", parts=(Text(text=text),), learn=True),), source="texts"
    )


@pytest.fixture(scope="module")
def texts(processor):
    words = ("two plus two is four", "a seven", "which digit is this? it is a nine")
    return [processor.encode(document(text)) for text in words]


@pytest.fixture(scope="module")
def mixed(processor, texts):
    """Reading, reading of several tiles, drawing, both at once, and text; of many lengths."""
    question, answer = Text(text="which digit is this?"), Text(text="a seven")
    read, wide = ReadImage(picture=picture(1)), ReadImage(picture=picture(2, 3 * TILE_SIZE))
    drawn = DrawnImage(picture=picture(3))
    talks = [
        talk((read, question), (answer,)),
        talk((wide, wide, Text(text="and these?")), (Text(text="three and four"),)),
        talk((Text(text="draw a seven"),), (drawn,)),
        talk((read, Text(text="draw it")), (Text(text="here:"), drawn, answer)),
    ]
    samples = [processor.encode(conversation) for conversation in talks]
    assert len({sample.num_tokens for sample in samples}) == len(samples)
    assert len(samples[1].read_tiles) == 8
    return [*samples, *texts]


@pytest.fixture
def make_model(processor):
    def make(language="llama"):
        torch.manual_seed(0)
        model = tiny_seed(language=language)
        model.language_model.resize_vocabulary(len(processor.tokenizer))
        model.drawn_features.calibrate(torch.randn(4, 16, 16))
        return model

    return make


def run(model, packs, blank):
    """Losses by name and gradients by parameter of several packs as one step."""
    batches = [collate(pack, blank=blank) for pack in packs]
    counts = {
        "language": float(sum(batch.num_targets for batch in batches)),
        "image": float(sum(batch.num_drawn for batch in batches)),
    }
    model.zero_grad(set_to_none=True)
    totals = dict.fromkeys(counts, 0.0)
    for batch in batches:
        losses = model(batch)
        losses.total(counts).backward()
        for name, term in losses.terms.items():
            totals[name] += term.total.item()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return totals, gradients


@pytest.mark.parametrize("language", sorted(LANGUAGE_CONFIGS))
def test_a_pack_equals_its_sequences_run_apart(make_model, mixed, processor, language):
    model, blank = make_model(language), BlankTile.of(processor)
    losses, gradients = run(model, [mixed], blank)
    apart_losses, apart = run(model, [[sample] for sample in mixed], blank)
    assert losses["language"] > 0
    assert losses["image"] > 0
    assert losses == pytest.approx(apart_losses, rel=1e-5)
    assert gradients.keys() == apart.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, apart[name], rtol=1e-3, atol=1e-6, msg=name)


def test_neither_order_nor_neighbours_matter(make_model, mixed, processor):
    model, blank = make_model(), BlankTile.of(processor)
    losses, gradients = run(model, [mixed], blank)
    other_losses, other = run(model, [mixed[::-1][:3], mixed[::-1][3:]], blank)
    assert losses == pytest.approx(other_losses, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, other[name], rtol=1e-3, atol=1e-6, msg=name)


def test_the_comparison_can_fail(make_model, mixed, processor):
    """One sequence less, and neither losses nor gradients are the same."""
    model, blank = make_model(), BlankTile.of(processor)
    losses, gradients = run(model, [mixed], blank)
    fewer_losses, fewer = run(model, [mixed[:-1]], blank)
    assert losses["language"] != pytest.approx(fewer_losses["language"], rel=1e-3)
    assert not torch.allclose(
        gradients["language_model.causal_lm.model.norm.weight"],
        fewer["language_model.causal_lm.model.norm.weight"],
        rtol=1e-3,
    )


def called_modules(model, batch):
    calls = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, module in model.named_modules()
    ]
    losses = model(batch)
    for hook in hooks:
        hook.remove()
    return calls, losses


def test_text_alone_takes_the_path_of_a_mixed_batch(make_model, mixed, texts, processor):
    model, blank = make_model(), BlankTile.of(processor)
    expected, _ = called_modules(model, collate(mixed, blank=blank))
    found, losses = called_modules(model, collate(texts, blank=blank))
    assert found == expected
    assert {"vision_encoder", "projector", "output_projector", "language_model"} <= set(found)
    assert losses.terms["image"].count == 0
    assert losses.terms["image"].total.item() == 0.0
    _, gradients = run(model, [mixed], blank)
    _, of_texts = run(model, [texts], blank)
    assert of_texts.keys() == gradients.keys()


def test_the_blank_tile_teaches_nothing(make_model, texts, processor):
    model, blank = make_model(), BlankTile.of(processor)
    _, gradients = run(model, [texts], blank)
    drawing = ("vision_encoder.", "projector.", "output_projector.", "patch_pos_embed")
    of_pictures = {name for name in gradients if name.startswith(drawing)}
    assert {name.split(".")[0] for name in of_pictures} == {part.strip(".") for part in drawing}
    for name, gradient in gradients.items():
        assert bool(gradient.any()) == (name not in of_pictures), name


def test_text_alone_has_the_loss_of_a_plain_language_model(make_model, texts, processor):
    """Against transformers' own forward, one text after the other, without our packing."""
    model, blank = make_model(), BlankTile.of(processor)
    losses, _ = run(model, [texts], blank)
    plain = model.language_model.causal_lm
    plain.set_attn_implementation("eager")
    expected = 0.0
    for sample in texts:
        logits = plain(input_ids=sample.input_ids[None]).logits[0]
        expected += F.cross_entropy(logits[:-1], sample.labels[1:], reduction="sum").item()
    assert losses["language"] == pytest.approx(expected, rel=1e-5)
