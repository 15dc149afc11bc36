"""Encode uint8 tiles with a Hugging Face vision transformer: SigLIP (1, 2), CLIP, DINO (2, 3).

Shape letters: I tiles, H W pixels, C channels, K grid tokens of a tile, V width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.models.fused_layers import fuse_layers
from mllm_npu.models.huggingface_config import build_pretrained, read_config, resolve_dtype
from mllm_npu.models.interfaces import VisionEncoder
from mllm_npu.models.vision_encoder.full_attention import ATTENTION_NAME

_PART = "HuggingFaceVisionEncoder"
_PATCHES_AS_INPUT = "siglip2_vision_model"
"""The family that is fed flattened patches instead of pictures."""


class HuggingFaceVisionEncoder(VisionEncoder):
    """A vision transformer whose outputs are its grid of patches; other tokens are dropped.

    Args:
        config: ``model_type`` (siglip_vision_model, siglip2_vision_model, clip_vision_model,
            dinov2, ...) and keys of that family's config class; the weights start at random.
            ``num_channels: 1`` averages the colours.
        path: local folder with ``config.json`` and safetensors; exactly one of ``config`` and
            ``path``.
        layer: which hidden states are given: -1 the last with the final norm, -2 those before the
            last block, ...
        final_norm: whether the last ones are given with the norm that a family has behind its
            blocks; LLaVA-OneVision reads them without.
        mean: subtracted from each channel of a picture in 0..1.
        std: divides each channel after that.
        dtype: "float32", "bfloat16" or "float16" of the parameters.

    Raises:
        ConfigError: unknown family or key, a model without a square patch grid, a layer that is not
            there.
        WeightsError: the folder lacks parameters of the model.
    """

    def __init__(
        self,
        *,
        config: Mapping[str, Any] | None = None,
        path: str | None = None,
        layer: int = -1,
        final_norm: bool = True,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        model_config = _vision_config(read_config(config, path, part=_PART))
        num_layers = int(model_config.num_hidden_layers)
        if not -num_layers <= layer <= -1:
            raise ConfigError(
                f"{_PART} was asked for layer={layer}; the encoder has {num_layers}, give "
                f"-1..-{num_layers}."
            )
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError(
                f"{_PART} needs three means and three positive stds, got mean={mean} and std={std}."
            )
        self.patch_size, self.tile_size = _grid(model_config)
        self.num_tokens = (self.tile_size // self.patch_size) ** 2
        self.width = int(model_config.hidden_size)
        self.layer = layer
        self.final_norm = final_norm
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._num_layers = num_layers
        self._grey = int(model_config.num_channels) == 1
        self._takes_patches = model_config.model_type == _PATCHES_AS_INPUT
        options: dict[str, Any] = {"dtype": resolve_dtype(dtype, part=_PART)}
        if MODEL_MAPPING[type(model_config)]._supports_attention_backend:
            options["attn_implementation"] = ATTENTION_NAME
        self.vision_model: Any = build_pretrained(
            AutoModel, model_config, path, part=_PART, **options
        )
        fuse_layers(self.vision_model)

    def forward(self, tiles_I3HW: Tensor) -> Tensor:
        """Encode tiles, uint8 or float 0..255 [I, 3, H, W] -> float [I, K, V].

        Raises:
            DataError: tiles of another size than the encoder's.
        """
        if tiles_I3HW.shape[1:] != (3, self.tile_size, self.tile_size):
            raise DataError(
                f"The vision encoder takes tiles [I, 3, {self.tile_size}, {self.tile_size}], got "
                f"{list(tiles_I3HW.shape)}; set the tile size of the processor to "
                f"{self.tile_size}."
            )
        pixels_ICHW = self._normalize(tiles_I3HW)
        inputs = (
            self._patches(pixels_ICHW) if self._takes_patches else {"pixel_values": pixels_ICHW}
        )
        if self.layer == -1 and self.final_norm:
            states = self.vision_model(**inputs).last_hidden_state
        else:
            states = self.vision_model(**inputs, output_hidden_states=True).hidden_states[
                self.layer
            ]
        return states[:, -self.num_tokens :]

    def sharding_units(self) -> Sequence[nn.Module]:
        """Transformer blocks in order of execution."""
        lists = (part for part in self.vision_model.modules() if isinstance(part, nn.ModuleList))
        return list(next(blocks for blocks in lists if len(blocks) == self._num_layers))

    def _normalize(self, tiles_I3HW: Tensor) -> Tensor:
        dtype = next(self.vision_model.parameters()).dtype
        channels = zip(tiles_I3HW.to(dtype).unbind(1), self.mean, self.std, strict=True)
        # Channels lie innermost, so that the patches come out of their convolution one behind the
        # other: all layers then work on memory without gaps.
        pixels_IHWC = torch.stack(
            [(channel * (1 / 255) - mean) * (1 / std) for channel, mean, std in channels], -1
        )
        pixels_IHWC = pixels_IHWC.mean(-1, keepdim=True) if self._grey else pixels_IHWC
        return pixels_IHWC.permute(0, 3, 1, 2)

    def _patches(self, pixels_ICHW: Tensor) -> dict[str, Tensor | None]:
        side, size = self.tile_size // self.patch_size, self.patch_size
        grid = pixels_ICHW.reshape(*pixels_ICHW.shape[:2], side, size, side, size)
        patches = grid.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        # All tiles share one grid, so one row of shapes serves all; it is read on the host.
        shapes = torch.full((1, 2), side, dtype=torch.int64, device="cpu")
        return {"pixel_values": patches, "pixel_attention_mask": None, "spatial_shapes": shapes}


def _vision_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of the vision tower, also where a folder holds a model of pictures and text."""
    config = getattr(config, "vision_config", config)
    if type(config) not in MODEL_MAPPING or not hasattr(config, "num_channels"):
        raise ConfigError(
            f"{_PART} was given model_type={config.model_type!r}, which is no vision encoder of "
            "transformers."
        )
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False
    return config


def _grid(config: PreTrainedConfig) -> tuple[int, int]:
    """Pixels of a patch's edge and of a tile's edge."""
    patch = config.patch_size
    num_patches = getattr(config, "num_patches", None)
    if isinstance(num_patches, int) and isinstance(patch, int):
        size: Any = round(num_patches**0.5) * patch
        square = round(num_patches**0.5) ** 2 == num_patches
    else:
        size = getattr(config, "image_size", None)
        # What is left of an edge behind the last whole patch is not seen (SigLIP at 384 pixels).
        square = isinstance(patch, int) and isinstance(size, int) and 0 < patch <= size
    if not square:
        raise ConfigError(
            f"{_PART} needs a square grid of whole patches, got image_size={size}, "
            f"patch_size={patch}, num_patches={num_patches} for model_type {config.model_type!r}."
        )
    return patch, size
