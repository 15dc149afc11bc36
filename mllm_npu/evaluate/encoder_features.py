"""Features of pictures by a vision encoder: one of each picture for FID, all tokens to compare two.

Shape letters: I pictures, S pixels of an edge, K tokens of a picture, V width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from mllm_npu.device.transfer import to_device
from mllm_npu.errors import ConfigError
from mllm_npu.evaluate.feature_statistics import FeatureStatistics, Rows
from mllm_npu.inference.engine import Engine
from mllm_npu.models.interfaces import VisionEncoder
from mllm_npu.processing.image_transform import stretch
from mllm_npu.processing.raster import Picture

_EPS = 1e-10


class EncoderFeatures:
    """What a vision encoder sees in pictures, which are stretched to its tile.

    Args:
        encoder: in evaluation mode, ready to compute on ``device``.
        device: where it computes.
        batch: pictures at once.
        layers: blocks whose tokens ``distances`` compares, by number: -1 is the last block, -2 the
            one before it. Without any it compares what the encoder gives, behind its last norm.

    Raises:
        ConfigError: a layer that is not there.
    """

    def __init__(
        self,
        *,
        encoder: VisionEncoder,
        device: torch.device | str,
        batch: int = 64,
        layers: Sequence[int] = (),
    ) -> None:
        num_blocks = len(encoder.sharding_units()) if layers else 0
        for layer in layers:
            if not -num_blocks <= layer <= -1:
                raise ConfigError(
                    f"layer {layer} of the vision encoder was asked for; it has {num_blocks}. "
                    f"Give -1..-{num_blocks}."
                )
        self.device = torch.device(device)
        self.encoder = encoder
        self.batch = batch
        self.layers = tuple(layers)

    @property
    def width(self) -> int:
        """V."""
        return self.encoder.width

    def pool(self, pictures: Iterable[Picture]) -> Rows:
        """The mean over the tokens of each picture, float32 [I, V] on the host."""
        pooled = [np.zeros((0, self.width), np.float32)]
        pooled += [
            self._encode(chunk).float().mean(dim=1).cpu().numpy()
            for chunk in _chunks(pictures, self.batch)
        ]
        return np.concatenate(pooled)

    def describe(self, pictures: Iterable[Picture]) -> FeatureStatistics:
        """Statistics of the pooled features; pictures are taken batch by batch."""
        statistics = FeatureStatistics(width=self.width)
        for chunk in _chunks(pictures, self.batch):
            statistics.add(self.pool(chunk))
        return statistics

    def probe(self) -> Rows:
        """Pooled features of one picture that is the same everywhere, float32 [V]."""
        steps = np.arange(self.encoder.tile_size, dtype=np.float64)
        wave = np.cos(steps / max(len(steps), 1) * 12.0)
        sheet = np.stack([np.add.outer(wave, wave * turn) for turn in (1.0, -1.0, 0.5)], axis=-1)
        pixels = ((sheet + 2.0) * 63.0).clip(0, 255).astype(np.uint8)
        return self.pool([Image.fromarray(pixels)])[0]

    def distances(self, truths: Sequence[Picture], drawn: Sequence[Picture]) -> list[float]:
        """How different two pictures look to the encoder, 0 (alike) to 4, for each pair.

        The tokens of every compared layer are brought to length 1; the squared differences are
        summed over the width, and averaged over tokens and layers.

        LPIPS (Zhang et al. 2018) does so too, with three differences: its network is a
        convolutional one trained to classify, ours whatever encoder is given; it weights channels
        by what it learnt from people's judgements, here all count alike; and it adds the layers
        up. Values are therefore not those of LPIPS, and compare only where the encoder and the
        layers are the same.
        """
        found: list[float] = []
        for start in range(0, len(truths), self.batch):
            stop = start + self.batch
            before, after = self._tokens(truths[start:stop]), self._tokens(drawn[start:stop])
            of_layers = [_squared_difference(*pair) for pair in zip(before, after, strict=True)]
            found += torch.stack(of_layers).mean(dim=0).cpu().tolist()
        return found

    @torch.inference_mode()
    def _encode(self, pictures: Sequence[Picture]) -> Tensor:
        """Tokens of pictures, float [I, K, V] on the device."""
        size = self.encoder.tile_size
        tiles_I3SS = torch.stack([stretch(picture, size) for picture in pictures])
        return self.encoder(to_device(tiles_I3SS, self.device))

    def _tokens(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """Tokens at each compared layer, float [I, K, V] each."""
        if not self.layers:
            return [self._encode(pictures)]
        found: dict[int, Tensor] = {}
        blocks = self.encoder.sharding_units()
        hooks = [blocks[layer].register_forward_hook(_keep(found, layer)) for layer in self.layers]
        try:
            self._encode(pictures)
        finally:
            for hook in hooks:
                hook.remove()
        return [found[layer] for layer in self.layers]


def features_of(
    engine: Engine, encoder: VisionEncoder | None = None, *, layers: Sequence[int] = ()
) -> EncoderFeatures:
    """Features by a given encoder on the device of an engine, or by the engine's own.

    The own encoder is weak evidence about the model's own drawings: they were made to look right
    to it. One it was not trained with (CLIP, DINOv2) is better.

    Raises:
        ConfigError: a layer that is not there.
    """
    own = engine.model.vision_encoder
    return EncoderFeatures(
        encoder=own if encoder is None else encoder.to(engine.device).eval(),
        device=engine.device,
        batch=engine.max_batch,
        layers=layers,
    )


def _keep(found: dict[int, Tensor], layer: int) -> Any:
    def keep(block: nn.Module, given: Any, made: Any) -> None:
        found[layer] = made[0] if isinstance(made, tuple) else made

    return keep


def _squared_difference(before_IKV: Tensor, after_IKV: Tensor) -> Tensor:
    """Between tokens of length 1: summed over the width, averaged over tokens, float32 [I]."""
    first_IKV = F.normalize(before_IKV.float(), dim=-1, eps=_EPS)
    second_IKV = F.normalize(after_IKV.float(), dim=-1, eps=_EPS)
    return (first_IKV - second_IKV).square().sum(dim=-1).mean(dim=1)


def _chunks(pictures: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    waiting = iter(pictures)
    while chunk := list(islice(waiting, size)):
        yield chunk
