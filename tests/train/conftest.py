"""Small stand-ins for model and data, so that training is tested apart from both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from mllm_npu.batch import Batch, Losses, LossTerm
from mllm_npu.distributed.mesh import Mesh
from mllm_npu.distributed.parallel import Parallel
from mllm_npu.distributed.placed import Placed
from mllm_npu.models.interfaces import ImageDecoder, LanguageModel, VisionEncoder

TILE, NUM_TOKENS, VISION_WIDTH, WIDTH, VOCABULARY, SLOTS = 4, 4, 6, 8, 11, 2


class FakeEncoder(VisionEncoder):
    """2x2 patches through one linear layer; counts the tiles it has seen."""

    width, num_tokens, tile_size = VISION_WIDTH, NUM_TOKENS, TILE

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, VISION_WIDTH)
        self.num_tiles = 0

    def forward(self, tiles_I3HW: Tensor) -> Tensor:
        self.num_tiles += tiles_I3HW.shape[0]
        pixels = tiles_I3HW.float() / 127.5 - 1
        return self.layer(nn.functional.unfold(pixels, 2, stride=2).transpose(1, 2))

    def sharding_units(self) -> list[nn.Module]:
        return [self.layer]


class FakeLanguageModel(LanguageModel):
    """A running sum inside each sequence, then one layer."""

    width, vocab_size = WIDTH, VOCABULARY

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def embed(self, ids: Tensor) -> Tensor:
        return self.table(ids)

    def forward(
        self, embeds_TD: Tensor, *, position_ids_T: Tensor, sequence_ends: Any, blocks: Any = ()
    ) -> Tensor:
        begins = [0, *sequence_ends[:-1]]
        parts = [
            embeds_TD[begin:end].cumsum(0) for begin, end in zip(begins, sequence_ends, strict=True)
        ]
        return torch.tanh(self.layer(self.dropout(torch.cat(parts))))

    def logits(self, hidden_ND: Tensor) -> Tensor:
        return hidden_ND @ self.table.weight.T

    def new_cache(self) -> Any:
        raise NotImplementedError

    def extend(self, embeds_BLD: Tensor, cache: Any, **_: Any) -> Tensor:
        raise NotImplementedError

    def resize_vocabulary(self, num_tokens: int) -> None:
        raise NotImplementedError

    def sharding_units(self) -> list[nn.Module]:
        return [self.layer]


class FakeDrawnFeatures(nn.Module):
    """Standardises with buffers."""

    def __init__(self, *, normalize: bool) -> None:
        super().__init__()
        self.normalize = normalize
        self.register_buffer("mean", torch.zeros(VISION_WIDTH))
        self.register_buffer("std", torch.ones(VISION_WIDTH))
        self.register_buffer("calibrated", torch.tensor(False))

    def calibrate(self, features: Tensor) -> None:
        self.mean.copy_(features.mean((0, 1)))
        self.std.copy_(features.std((0, 1)))
        self.calibrated.fill_(True)

    def forward(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.std)[:, :SLOTS]


class FakeImageDecoder(ImageDecoder):
    """Paints one colour per picture."""

    width, num_tokens, picture_size = VISION_WIDTH, SLOTS, TILE

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(VISION_WIDTH, 3)
        self.features: list[Tensor] = []
        self.options: list[dict[str, Any]] = []
        self.num_encoded = 0

    def encode_pictures(self, pictures_G3SS: Tensor) -> Tensor:
        self.num_encoded += len(pictures_G3SS)
        return pictures_G3SS.float() / 127.5 - 1

    def loss(self, encoded_GCHW: Tensor, features_GPV: Tensor, **options: Any) -> Tensor:
        self.features.append(features_GPV.detach())
        self.options.append(options)
        painted = self.layer(features_GPV.mean(1))[:, :, None, None]
        return (painted - encoded_GCHW).square().mean((1, 2, 3))

    def decode(self, features_GPV: Tensor, **options: Any) -> Tensor:
        raise NotImplementedError

    def sharding_units(self) -> list[nn.Module]:
        return [self.layer]


class FakeModel(nn.Module):
    """Reads, writes and draws like SEED."""

    def __init__(self, *, normalize: bool = True) -> None:
        super().__init__()
        self.vision_encoder = FakeEncoder()
        self.projector = nn.Linear(VISION_WIDTH, WIDTH)
        self.language_model = FakeLanguageModel()
        self.output_projector = nn.Linear(WIDTH, VISION_WIDTH)
        self.drawn_features = FakeDrawnFeatures(normalize=normalize)
        self.image_decoder = FakeImageDecoder()

    def hidden(self, batch: Batch, *, tile_features_IKV: Tensor | None = None) -> Tensor:
        if tile_features_IKV is None:
            tile_features_IKV = self.vision_encoder(batch.tiles)
        read = self.projector(tile_features_IKV[batch.read_tiles][:, :SLOTS])
        embeds = self.language_model.embed(batch.input_ids)
        embeds = embeds.index_copy(0, batch.read_slots.reshape(-1), read.reshape(-1, WIDTH))
        return self.language_model(
            embeds, position_ids_T=batch.position_ids, sequence_ends=batch.sequence_ends
        )

    def drawn_hidden(self, batch: Batch, hidden: Tensor) -> Tensor:
        return hidden[batch.draw_slots]

    def predict_features(self, hidden: Tensor) -> Tensor:
        return self.output_projector(hidden)

    def target_features(self, features: Tensor) -> Tensor:
        return self.drawn_features(features)

    def empty_features(self) -> Tensor | None:
        return torch.full((SLOTS, VISION_WIDTH), 7.0) if self.image_decoder.needs_empty else None

    def forward(self, batch: Batch, *, tile_features_IKV: Tensor | None = None) -> Losses:
        if tile_features_IKV is None:
            tile_features_IKV = self.vision_encoder(batch.tiles)
        hidden = self.hidden(batch, tile_features_IKV=tile_features_IKV)
        logits = self.language_model.logits(hidden[batch.target_positions])
        per_target = nn.functional.cross_entropy(logits, batch.targets, reduction="none")
        target = self.target_features(tile_features_IKV[batch.draw_tiles]).detach()
        predicted = self.predict_features(hidden[batch.draw_slots])
        per_drawn = (predicted - target).square().mean((1, 2)) * batch.draw_weights
        return Losses(
            terms={
                "language": LossTerm(total=per_target.sum(), count=batch.num_targets),
                "image": LossTerm(total=per_drawn.sum(), count=batch.num_drawn, weight=0.5),
            },
            per_target=per_target.detach(),
            per_drawn=per_drawn.detach(),
        )


def build_batch(kinds: str, *, seed: int = 0, texts: dict[int, list[int]] | None = None) -> Batch:
    """A pack of sequences: r reads a tile, 2 reads two, d draws one, b is the blank one.

    ``texts`` sets the target tokens of a sequence; else they are random.
    """
    generator = torch.Generator().manual_seed(seed)
    lists: dict[str, list[Any]] = {
        name: [] for name in ("ids", "places", "ends", "at", "targets", "of")
    }
    reads, draws, tiles = [], [], []
    for number, kind in enumerate(kinds):
        begin = len(lists["ids"])
        for is_read in {"r": [True], "2": [True] * 2, "d": [False], "b": [True, False]}[kind]:
            slots = [len(lists["ids"]) + slot for slot in range(SLOTS)]
            (reads if is_read else draws).append((len(tiles), slots, number))
            tiles.append(
                torch.randint(0, 256, (3, TILE, TILE), generator=generator, dtype=torch.uint8)
            )
            lists["ids"] += [1] * SLOTS
        if kind != "b":
            random = torch.randint(2, VOCABULARY, (3,), generator=generator).tolist()
            for target in (texts or {}).get(number, random):
                lists["at"].append(len(lists["ids"]) - 1)
                lists["targets"].append(target)
                lists["of"].append(number)
                lists["ids"].append(target)
        lists["places"] += range(len(lists["ids"]) - begin)
        lists["ends"].append(len(lists["ids"]))
    reads, draws = reads or [(0, [0] * SLOTS, 0)], draws or [(0, [0] * SLOTS, 0)]
    is_real = [kinds[number] == "d" for _, _, number in draws]
    return Batch(
        input_ids=torch.tensor(lists["ids"]),
        position_ids=torch.tensor(lists["places"]),
        sequence_ends=tuple(lists["ends"]),
        target_positions=torch.tensor(lists["at"], dtype=torch.int64),
        targets=torch.tensor(lists["targets"], dtype=torch.int64),
        target_sequences=torch.tensor(lists["of"], dtype=torch.int64),
        tiles=torch.stack(tiles),
        tile_positions=torch.full((len(tiles), 2), 0.5),
        read_tiles=torch.tensor([tile for tile, _, _ in reads]),
        read_slots=torch.tensor([slots for _, slots, _ in reads]),
        draw_tiles=torch.tensor([tile for tile, _, _ in draws]),
        draw_slots=torch.tensor([slots for _, slots, _ in draws]),
        draw_weights=torch.tensor(is_real, dtype=torch.float32),
        draw_sequences=torch.tensor([number for _, _, number in draws]),
        num_drawn=sum(is_real),
        keys=tuple("" if kind == "b" else f"{seed}-{n}" for n, kind in enumerate(kinds)),
        sources=tuple({"b": "", "d": "drawings"}.get(kind, "readings") for kind in kinds),
        tasks=tuple({"b": "", "d": "draw"}.get(kind, "read") for kind in kinds),
    )


class FakeBatches:
    """Endless batches, a pure function of the position."""

    skipped: ClassVar[dict[str, int]] = {}

    def __init__(self, kinds: str = "rdrb", *, name: str = "fake", end: int | None = None) -> None:
        self.kinds, self.name, self.end, self.consumed = kinds, name, end, 0

    def __iter__(self) -> Iterator[Batch]:
        while self.end is None or self.consumed < self.end:
            self.consumed += 1
            yield build_batch(self.kinds, seed=self.consumed)

    def preview(self) -> Iterator[Batch]:
        return (build_batch(self.kinds, seed=number) for number in count(1))

    def rehearsal(self) -> list[Batch]:
        return [build_batch(self.kinds[:2], seed=1), build_batch(self.kinds, seed=1)]

    def state_dict(self) -> dict[str, Any]:
        return {"name": self.name, "consumed": self.consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.consumed = state["consumed"]


def place(objective, mesh: Mesh | None = None, **settings: Any) -> Placed:
    """An objective in its place: one process, or what the settings of ``Parallel`` say."""
    device = torch.device("cpu")
    parallel = Parallel(**{"kind": "single", **settings})
    placed = parallel.shape(objective, mesh or Mesh.single(), device)
    placed.settle()
    return placed


@pytest.fixture
def put_in_place() -> Callable[..., Placed]:
    return place


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    return build_batch


@pytest.fixture
def make_batches() -> type[FakeBatches]:
    return FakeBatches


@pytest.fixture
def make_model() -> Callable[..., FakeModel]:
    def make(*, seed: int = 0, normalize: bool = True) -> FakeModel:
        torch.manual_seed(seed)
        return FakeModel(normalize=normalize)

    return make


@pytest.fixture
def make_language_model() -> type[FakeLanguageModel]:
    return FakeLanguageModel
