"""A step with joined tiles gives the losses of the CPU on the device, and never waits for it."""

import copy

import pytest
import torch
import torch_npu
from PIL import Image
from tokenizers import AddedToken

from mllm_npu.data.collate import BlankTile, collate
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.mllm import GeneralizedMultimodalModel
from mllm_npu.models.tiny import LANGUAGE_CONFIGS, NUM_QUERIES, TILE_SIZE, tiny_mllm
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn
from mllm_npu.processing.joined_tiles import JoinedTiles
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.tokenizer import train_tokenizer

SIZES = [(40, 16), (90, 80), (16, 16)]


@pytest.fixture(scope="module")
def processor():
    tokenizer = train_tokenizer(["what is this? a cat"], vocab_size=300)
    tokenizer.add_tokens([AddedToken("<image>", special=True)])
    return Processor(
        tokenizer=tokenizer,
        any_resolution=JoinedTiles(
            grids=["1x1", "2x1", "3x3"], tile_size=TILE_SIZE, max_grid_tiles=4
        ),
        chat_template=ChatTemplate(user_prefix="u: ", assistant_prefix="a: "),
        num_read_tokens=NUM_QUERIES,
        num_drawn_tokens=0,
        max_tokens=400,
        image_token="<image>",
    )


@pytest.fixture(scope="module")
def batches(processor):
    """One with a picture that is shrunk, one with text alone."""

    def encode(*pictures):
        turns = (
            Turn(role="user", parts=(*pictures, Text(text="what is this?"))),
            Turn(role="assistant", parts=(Text(text="a cat"),), learn=True),
        )
        return processor.encode(Conversation(turns=turns))

    read = [encode(ReadImage(picture=Image.new("RGB", size, (9, 99, 199)))) for size in SIZES]
    blank = BlankTile.of(processor)
    return [collate(read, blank=blank), collate([encode()], blank=blank)]


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(0)
    parts = dict(tiny_mllm().named_children())
    config = {**LANGUAGE_CONFIGS["llama"], "max_position_embeddings": 512}
    parts["language_model"] = HuggingFaceLanguageModel(
        config=config, vocab_size=len(processor.tokenizer)
    )
    return GeneralizedMultimodalModel(**parts, newline=True)


def step(model, batch):
    losses = model(batch)
    loss = losses.total({"language": float(batch.num_targets)})
    loss.backward()
    return loss


@pytest.mark.parametrize("place", [0, 1])
def test_a_step_is_that_of_the_cpu_and_does_not_wait(model, batches, place):
    batch = batches[place]
    assert (batch.grid_weights is None) == (place == 1)
    own, there = copy.deepcopy(model), copy.deepcopy(model).to("npu")
    expected = step(own, batch)
    moved = batch.to("npu")
    step(there, moved)
    there.zero_grad()
    torch_npu.simulation.stats(reset=True)
    torch_npu.simulation.forbid_fallbacks()
    torch_npu.simulation.forbid_float64()
    torch.npu.set_sync_debug_mode("error")
    found = step(there, moved)
    torch.npu.set_sync_debug_mode("default")
    done = torch_npu.simulation.stats()
    assert done.syncs == done.fallbacks == done.float64 == {}
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(there.newline.grad.cpu(), own.newline.grad, rtol=1e-3, atol=1e-6)
