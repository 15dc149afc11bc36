"""A model and a processor so small that every reply can be worked out by hand."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mllm_npu.batch import Sample
from mllm_npu.errors import RequestError
from mllm_npu.processing.conversation import ReadImage, Text

NUM_SLOTS = 4
BEGIN, END, PATCH_BEGIN, PATCH_END, PAD, EOS = range(256, 262)
SLOTS = (262, 263, 264, 265, 266)
NUM_KNOWN = 267
VOCABULARY = 270


class BigramLanguageModel(nn.Module):
    """Follows a table: after token a comes token b. Counts its forward passes."""

    width = VOCABULARY
    vocab_size = VOCABULARY

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

    def new_cache(self):
        return []

    def extend(self, embeds_BLD, cache, *, blocks=()):
        assert not cache or len(cache[0]) == len(embeds_BLD)
        cache.append(embeds_BLD)
        self.fed.append(tuple(embeds_BLD.shape[:2]))
        self.blocks.append(tuple(blocks))
        return embeds_BLD @ self.table_CC


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


@pytest.fixture(scope="session")
def fakes():
    """Everything above, as conftest files cannot be imported."""
    return SimpleNamespace(**globals())
