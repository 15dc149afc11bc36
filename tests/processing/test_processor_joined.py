"""Pictures as one token repeated: where tags, slots and separate tiles are not."""

import pytest
import torch
from tokenizers import AddedToken

from mllm_npu.errors import ConfigError, RequestError
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn
from mllm_npu.processing.joined_tiles import JoinedTiles
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.single_tile import SingleTile
from mllm_npu.processing.tokenizer import train_tokenizer

TEXTS = ["what is this? a cat", "USER: ASSISTANT: a dog and a cat"] * 5
FRAMES = ChatTemplate(
    user_prefix="USER: ",
    user_suffix=" ",
    assistant_prefix="ASSISTANT:",
    assistant_gap=" ",
    picture_suffix="\n",
)


@pytest.fixture
def plain():
    trained = train_tokenizer(TEXTS, vocab_size=300)
    token = AddedToken("<image>", normalized=False, special=True)
    trained.add_tokens([token], special_tokens=True)
    return trained


@pytest.fixture
def make(plain):
    def build(**changes):
        parts = {
            "tokenizer": plain,
            "any_resolution": JoinedTiles(
                grids=["1x1", "2x1", "2x2"], tile_size=8, one_tile_in_company=True
            ),
            "chat_template": FRAMES,
            "num_read_tokens": 4,
            "num_drawn_tokens": 0,
            "max_tokens": 300,
            "image_token": "<image>",
            "join_texts": True,
        }
        return Processor(**{**parts, **changes})

    return build


def talk(*pictures, text="what is this?", answer="a cat"):
    parts = (*(ReadImage(picture=picture) for picture in pictures), Text(text=text))
    turns = [Turn(role="user", parts=parts)]
    if answer:
        turns.append(Turn(role="assistant", parts=(Text(text=answer),), learn=True))
    return Conversation(turns=tuple(turns))


def test_a_picture_is_its_token_as_often_as_it_has_features(make, picture):
    processor = make()
    sample = processor.encode(talk(picture(40, 20)))
    image = processor.image_ids.slots[0]
    assert torch.equal((sample.input_ids == image).nonzero().flatten(), sample.grid_slots)
    assert len(sample.grid_slots) == 4 + 2 * 5
    assert sample.grid_sources.shape == (14, 1)
    assert sample.read_slots.shape == (0, 4)
    assert sample.read_tiles.tolist() == [0, 1, 2]
    assert sample.grid_sources.max() == 3 * 4
    assert sample.draw_slots.shape == (0, 0)


def test_pictures_in_company_are_one_tile_each(make, picture):
    sample = make().encode(talk(picture(40, 20), picture(8, 8)))
    assert len(sample.tiles) == 2
    assert sample.grid_sources[:, 0].tolist() == [1, 2, 3, 4, 0, 5, 6, 7, 8, 0]


def test_one_tile_stands_in_its_slots_without_tags(make, picture):
    processor = make(any_resolution=SingleTile(tile_size=8))
    sample = processor.encode(talk(picture(40, 20)))
    image = processor.image_ids.slots[0]
    assert sample.grid_slots is None
    assert torch.equal((sample.input_ids == image).nonzero().flatten(), sample.read_slots[0])


def test_texts_are_tokenised_as_the_whole_they_are(make, plain, picture):
    sample = make().encode(talk(picture()))
    said = "USER: " + "<image>" * 10 + "\nwhat is this? ASSISTANT: a cat"
    expected = [plain.bos_token_id, *plain.encode(said, add_special_tokens=False)]
    assert sample.input_ids.tolist() == [*expected, plain.eos_token_id]
    learnt = sample.labels[sample.labels >= 0].tolist()
    assert learnt == [*plain.encode(" a cat", add_special_tokens=False), plain.eos_token_id]


def test_a_question_ends_where_the_assistant_begins(make, plain):
    ids = make().encode(talk(answer=""), reply=True).input_ids.tolist()
    said = "USER: what is this? ASSISTANT:"
    assert ids == [plain.bos_token_id, *plain.encode(said, add_special_tokens=False)]


@pytest.mark.parametrize("sizes", [[], [(8, 8)], [(40, 20)], [(40, 20), (8, 9)]])
def test_lengths_are_known_before_anything_is_encoded(make, picture, sizes):
    processor = make()
    rule, tiling = processor.length_rule, processor.any_resolution
    pictures = [picture(*size) for size in sizes]
    read = sum(
        tiling.num_tokens(*size, per_tile=rule.read_tile, alone=len(sizes) == 1) + rule.read_picture
        for size in sizes
    )
    texts = processor.count_tokens("what is this?") + processor.count_tokens("a cat")
    planned = rule.opening + rule.user_frame + rule.assistant_frame + read + texts
    layout = processor.lay_out(talk(*pictures))
    assert 0 <= planned - layout.num_tokens <= 4
    assert layout.num_tiles == sum(tiling.num_tiles(*size, alone=len(sizes) == 1) for size in sizes)
    learnt = sum(label >= 0 for label in layout.labels)
    assert learnt <= processor.count_tokens("a cat") + rule.learnt_answer


@pytest.mark.parametrize("text", ["<image>", "a <image> b"])
def test_a_text_cannot_bring_a_picture(make, text):
    with pytest.raises(RequestError, match="<image>"):
        make().encode(talk(text=text, answer=""), reply=True)


def test_neither_can_two_texts_where_they_meet(make):
    parts = (Text(text="<ima"), Text(text="ge>"))
    asked = Conversation(turns=(Turn(role="user", parts=parts),))
    with pytest.raises(RequestError, match="<image>"):
        make().encode(asked, reply=True)
    assert make(join_texts=False).encode(asked, reply=True).num_tokens > 4


def test_the_picture_token_is_not_shown_to_a_reader(make):
    processor = make()
    ids = [*processor.image_ids.slots, *processor.encode_text("a cat")]
    assert processor.decode_text(ids) == "a cat"


def test_a_token_that_is_not_there_is_refused(make):
    with pytest.raises(ConfigError, match="image_token=<picture>"):
        make(image_token="<picture>")
