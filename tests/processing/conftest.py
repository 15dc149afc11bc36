"""Fixtures of the processing tests: a small tokenizer, a processor, a picture."""

import pytest
from PIL import Image

from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import RAW
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

TEXTS = ["a photo of a cat", "which digit is this? draw a 7.", "seven plus two is nine"] * 5


@pytest.fixture
def tokenizer():
    trained = train_tokenizer(TEXTS, vocab_size=300)
    add_special_tokens(trained, SpecialTokens(num_slots=8, num_locations=0))
    return trained


@pytest.fixture
def make_processor(tokenizer):
    def make(**changes):
        parts = {
            "tokenizer": tokenizer,
            "any_resolution": AnyResolution(
                grids=["1x1", "2x1", "3x1"], tile_size=8, repeat_single_tile=False
            ),
            "chat_template": RAW,
            "num_read_tokens": 4,
            "num_drawn_tokens": 6,
            "max_tokens": 200,
        }
        return Processor(**{**parts, **changes})

    return make


@pytest.fixture
def picture():
    """A picture of any size with a different colour at every place."""

    def paint(width=8, height=8):
        image = Image.new("RGB", (width, height))
        image.putdata(
            [
                (x * 7 % 256, y * 11 % 256, (x + y) % 256)
                for y in range(height)
                for x in range(width)
            ]
        )
        return image

    return paint
