"""A model and a processor so small that every reply can be worked out by hand."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from mllm_npu.batch import Sample
from mllm_npu.errors import RequestError
from mllm_npu.models.tiny import NUM_QUERIES, TILE_SIZE, tiny_seed
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.conversation import ReadImage, Text
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

NUM_SLOTS = 4
BEGIN, END, PATCH_BEGIN, PATCH_END, PAD, EOS = range(256, 262)
SLOTS = (262, 263, 264, 265, 266)
NUM_KNOWN = 267
VOCABULARY = 270


class BigramLanguageModel(nn.Module):
    """Follows a table: after token a comes token b. Counts its forward passes."""

    width = VOCABULARY
    vocab_size = VOCABULARY
    max_tokens = None

    def __init__(self, table):
        super().__init__()
        self.table_CC = nn.Parameter(torch.zeros(VOCABULARY, VOCABULARY))
        self.fed = []
        self.blocks = []
        with torch.no_grad():
            for before, after in table.items():
                self.table_CC[before, after] = 5.0

    def embed(self, ids):
        return F.one_hot(ids, VOCABULARY).float()

    def logits(self, hidden_ND):
        return hidden_ND - 10.0

    def new_slots(self, num_slots, max_tokens, *, first_tokens=None):
        return BigramSlots(self, num_slots, max_tokens)


class BigramSlots:
    """Counts what is fed: the requests of a step and the most tokens of one of them."""

    can_copy = True

    def __init__(self, language_model, num_slots, max_tokens):
        self.language_model = language_model
        self.num_slots, self.max_tokens = num_slots, max_tokens
        self.held = [[] for _ in range(num_slots)]

    def advance(self, embeds_TD, spans):
        parts = embeds_TD.split([span.length for span in spans])
        for span, part_LD in zip(spans, parts, strict=True):
            held = self.held[span.slot]
            del held[span.start :]
            assert len(held) == span.start
            held.extend(part_LD.argmax(-1).tolist())
            assert len(held) <= self.max_tokens
        self.language_model.fed.append((len(spans), max(span.length for span in spans)))
        self.language_model.blocks.append([span.blocks for span in spans])
        return embeds_TD @ self.language_model.table_CC

    def move(self, source, target, length):
        assert length == len(self.held[source])
        self.held[target], self.held[source] = self.held[source], []

    def read(self, slot, length):
        return (torch.tensor(self.held[slot][:length]),)

    def write(self, slot, states, length):
        self.held[slot] = states[0][:length].tolist()


class ColourDecoder(nn.Module):
    """Paints one grey: the mean of the features and a little of the noise."""

    picture_size = 2

    def __init__(self, *, takes_condition=False):
        super().__init__()
        self.takes_condition = takes_condition
        self.batches = []
        self.conditions = []

    def decode(
        self, features_GPV, *, steps, guidance, generator, conditions_G3SS=None, image_guidance=1.5
    ):
        self.batches.append((len(features_GPV), steps, guidance))
        self.conditions.append(conditions_G3SS)
        noise = torch.stack([torch.rand(1, generator=single) for single in generator])
        grey = features_GPV.mean((1, 2)) * 1000 + guidance + noise[:, 0] * 100
        return grey.clamp(0, 255).byte()[:, None, None, None].expand(-1, 3, 2, 2)


class FakeModel(nn.Module):
    bidirectional_images = False

    def __init__(self, table, *, draws=True, takes_condition=False):
        super().__init__()
        self.language_model = BigramLanguageModel(table)
        self.vision_encoder = SimpleNamespace(tile_size=2)
        self.tiles_seen = []
        if draws:
            self.image_decoder = ColourDecoder(takes_condition=takes_condition)
            self.draw = self.image_decoder.decode

    def encode_tiles(self, tiles_I3HW):
        self.tiles_seen.append(len(tiles_I3HW))
        return tiles_I3HW.float().mean((1, 2, 3))[:, None, None]

    def read(self, features_RKV, positions_R2):
        letters_R = features_RKV.long().flatten()
        return F.one_hot(letters_R, VOCABULARY).float()[:, None]

    def target_features(self, features_GKV):
        return features_GKV / 1000

    def predict_features(self, hidden_GPD):
        assert hidden_GPD.shape[1] == NUM_SLOTS
        return hidden_GPD[..., :8]


class ByteProcessor:
    """Bytes are tokens; a read picture is one slot whose grey value is the letter it stands for."""

    image_ids = SimpleNamespace(
        begin=BEGIN, end=END, patch_begin=PATCH_BEGIN, patch_end=PATCH_END, slots=SLOTS
    )
    num_drawn_tokens = NUM_SLOTS
    pad_id, eos_id = PAD, EOS
    tokenizer = range(NUM_KNOWN)
    chat_template = SimpleNamespace(close_with_eos=True)

    def __init__(self, max_tokens=64):
        self.max_tokens = max_tokens

    def decode_text(self, ids):
        return bytes(number for number in ids if number < 256).decode("utf-8", errors="replace")

    def read_boxes(self, ids):
        return ()

    def encode(self, conversation, *, reply=False, rng=None):
        assert reply
        ids, tiles, slots = [], [], []
        for part in (part for turn in conversation.turns for part in turn.parts):
            match part:
                case Text(text=text):
                    ids.extend(text.encode())
                case ReadImage(picture=picture):
                    tiles.append(torch.full((3, 2, 2), picture.getpixel((0, 0))[0]).byte())
                    slots.append([len(ids)])
                    ids.append(SLOTS[0])
        if len(ids) > self.max_tokens:
            raise RequestError("too long")
        num_tiles = len(tiles)
        return Sample(
            input_ids=torch.tensor(ids),
            labels=torch.full((len(ids),), -100),
            tiles=torch.stack(tiles) if tiles else torch.empty(0, 3, 2, 2, dtype=torch.uint8),
            tile_positions=torch.full((num_tiles, 2), 0.5),
            read_tiles=torch.arange(num_tiles),
            read_slots=torch.tensor(slots, dtype=torch.int64).reshape(num_tiles, 1),
            draw_tiles=torch.empty(0, dtype=torch.int64),
            draw_slots=torch.empty(0, NUM_SLOTS, dtype=torch.int64),
        )


class ClosingTokenizer:
    """Knows one special token."""

    def __init__(self, closing):
        self.all_special_ids = [closing]

    def __len__(self):
        return NUM_KNOWN

    def encode(self, text, *, add_special_tokens):
        assert not add_special_tokens
        return [*self.all_special_ids, ord("-")]


def chain(*tokens):
    """A table in which each token is followed by the next one."""
    return dict(pairwise(tokens))


def spell(text, *rest):
    """A table that writes ``text``, then the other tokens."""
    return chain(*text.encode(), *rest)


def noise_picture(seed, size=(16, 16)):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


QUESTIONS = ("Draw a seven.", "Which digit is this?", "What is the sum?", "Read the digits.")


@pytest.fixture(scope="session")
def real_processor():
    """A processor of small tiles, several to a wide picture."""
    tokenizer = train_tokenizer(QUESTIONS * 3, vocab_size=300)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=8, num_locations=0))
    return Processor(
        tokenizer=tokenizer,
        any_resolution=AnyResolution(
            grids=["1x1", "2x1", "3x1"], tile_size=TILE_SIZE, repeat_single_tile=False
        ),
        chat_template=ChatTemplate(user_suffix="\n"),
        num_read_tokens=NUM_QUERIES,
        num_drawn_tokens=NUM_QUERIES,
        max_tokens=160,
    )


@pytest.fixture(scope="session")
def real_model(real_processor):
    """A small model with random weights that reads, writes and draws."""
    torch.manual_seed(0)
    model = tiny_seed().eval()
    model.language_model.resize_vocabulary(len(real_processor.tokenizer))
    # The mean of all rows would be what is chosen most: every token gets a row of its own.
    with torch.no_grad():
        table = model.language_model.causal_lm.get_input_embeddings().weight
        table.copy_(torch.randn_like(table) * 0.3)
    return model


@pytest.fixture(scope="session")
def fakes():
    """Everything above, as conftest files cannot be imported."""
    return SimpleNamespace(**globals())
