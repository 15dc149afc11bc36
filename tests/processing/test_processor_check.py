"""A processor whose parts do not fit is refused before it encodes anything."""

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.joined_tiles import JoinedTiles
from mllm_npu.processing.processor_check import check_sizes, check_tokens
from mllm_npu.processing.special_tokens import ImageIds

TILES = AnyResolution(grids=["1x1"], tile_size=8)
JOINED = JoinedTiles(grids=["1x1"], tile_size=8)


@pytest.fixture
def repeated(tokenizer):
    return ImageIds.repeated(tokenizer, "<img>")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"max_tokens": 0, "picture_size": None}, "max_tokens=0"),
        ({"max_tokens": 5, "picture_size": 0}, "picture_size=0"),
        ({"max_tokens": 5, "picture_size": None, "condition_pictures": True}, "without a picture"),
    ],
)
def test_sizes(sizes, message):
    check_sizes(5, 5, condition_pictures=True)
    with pytest.raises(ConfigError, match=message):
        check_sizes(**{"condition_pictures": False, **sizes})


@pytest.mark.parametrize(("read", "drawn"), [(0, 0), (9, 0), (4, 9), (4, -1)])
def test_slots_that_are_not_there(tokenizer, read, drawn):
    ids = ImageIds.of(tokenizer)
    check_tokens(tokenizer, ids, TILES, 8, 8)
    with pytest.raises(ConfigError, match="8 image slots"):
        check_tokens(tokenizer, ids, TILES, read, drawn)


def test_one_token_for_all_features_leaves_nothing_to_draw_with(tokenizer, repeated):
    check_tokens(tokenizer, repeated, TILES, 500, 0)
    for read, drawn in ((4, 1), (0, 0)):
        with pytest.raises(ConfigError, match="image_token was asked for"):
            check_tokens(tokenizer, repeated, TILES, read, drawn)


def test_a_grid_needs_a_square_and_no_tags(tokenizer, repeated):
    check_tokens(tokenizer, repeated, JOINED, 9, 0)
    with pytest.raises(ConfigError, match="a square number of tokens"):
        check_tokens(tokenizer, repeated, JOINED, 8, 0)
    with pytest.raises(ConfigError, match="with tags"):
        check_tokens(tokenizer, ImageIds.of(tokenizer), JOINED, 4, 0)


def test_a_tokenizer_that_cannot_end_an_answer(tokenizer):
    ids = ImageIds.of(tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no end-of-text token"):
        check_tokens(tokenizer, ids, TILES, 4, 0)
