"""Draw small pictures from vision features with a flow-matching UNet.

The features come in twice: as a grid stretched over the picture and joined to the UNet's input, so
that every place knows its own token, and through cross-attention. The network predicts the clean
picture; its error is weighted as an error of the velocity.

Shape letters: G pictures, C channels, S pixels of an edge, P condition tokens, V their width, A
channels of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from mllm_npu.errors import ConfigError, RequestError
from mllm_npu.models.fused_layers import fuse_layers
from mllm_npu.models.image_decoder.noise import chosen_share, draw_noise, noise_like
from mllm_npu.models.image_decoder.pixels import to_levels, to_pixels
from mllm_npu.models.interfaces import ImageDecoder
from mllm_npu.models.positions import grid_side, sincos_grid

_TIMES = 1000
"""Steps of the time scale that the UNet's time embedding expects."""
_LONGEST_WAVE = 100.0
_SMALLEST_TIME = 0.1
"""Smallest time in the weight of the error, so that nearly clean pictures do not rule the loss."""


class FlowImageDecoder(ImageDecoder):
    """A UNet from diffusers on pixels, trained by flow matching, solved by Euler steps.

    Args:
        width: V.
        num_tokens: P, a square.
        picture_size: S; ``picture_size / pixel_unshuffle`` must halve once per level below the
            first.
        channels: 3, or 1 for grey pictures (pictures keep three equal channels outside).
        block_channels: channels of each level, from the outside in; multiples of ``num_groups``.
        layers_per_block: residual layers of each level.
        num_heads: heads of the cross-attention.
        num_groups: groups of the group norm.
        token_channels: A.
        pixel_unshuffle: squares of this edge are folded into channels before the UNet, which makes
            it faster.
        null_share: share of training pictures whose condition is replaced by the learnt empty one,
            for guidance.

    Raises:
        ConfigError: sizes that do not fit each other.

    Source: flow matching (Lipman et al. 2022), logit-normal times (Esser et al. 2024),
        classifier-free guidance (Ho
    and Salimans 2022).
    """

    positions: Tensor
    unet: Any

    def __init__(
        self,
        *,
        width: int,
        num_tokens: int,
        picture_size: int,
        channels: int = 3,
        block_channels: Sequence[int] = (16, 32),
        layers_per_block: int = 1,
        num_heads: int = 2,
        num_groups: int = 8,
        token_channels: int = 16,
        pixel_unshuffle: int = 1,
        null_share: float = 0.1,
    ) -> None:
        super().__init__()
        self.width, self.num_tokens, self.picture_size = width, num_tokens, picture_size
        self.channels, self.pixel_unshuffle, self.null_share = channels, pixel_unshuffle, null_share
        self._side = grid_side(num_tokens, part="FlowImageDecoder")
        self._check(tuple(block_channels), num_groups, num_heads)
        self.register_buffer(
            "positions", sincos_grid(self._side, width, longest_wave=_LONGEST_WAVE)
        )
        self.null_PV = nn.Parameter(torch.zeros(num_tokens, width))
        self.to_grid = nn.Linear(width, token_channels)
        folded = channels * pixel_unshuffle**2
        self.unet = _build_unet(
            size=picture_size // pixel_unshuffle,
            in_channels=folded + token_channels,
            out_channels=folded,
            block_channels=tuple(block_channels),
            layers_per_block=layers_per_block,
            num_heads=num_heads,
            num_groups=num_groups,
            width=width,
        )

    def encode_pictures(self, pictures_G3SS: Tensor) -> Tensor:
        """Pixels -1..1, uint8 [G, 3, S, S] -> float [G, C, S, S].

        Raises:
            RequestError: pictures of another size.
        """
        pictures = to_pixels(pictures_G3SS, self.picture_size, self.null_PV.dtype)
        return pictures.mean(1, keepdim=True) if self.channels == 1 else pictures

    def loss(
        self,
        encoded_GCHW: Tensor,
        features_GPV: Tensor,
        *,
        conditions_GCHW: Tensor | None = None,
        empty_PV: Tensor | None = None,
    ) -> Tensor:
        """Mean squared error of the velocity of each picture at a random time, float32 [G].

        It takes no picture to change and has learnt what empty features are.
        """
        clean_GCSS = encoded_GCHW
        num_pictures, device = len(clean_GCSS), clean_GCSS.device
        times_G111 = noise_like(clean_GCSS[:, :1, :1, :1]).sigmoid()
        noisy_GCSS = torch.lerp(clean_GCSS, noise_like(clean_GCSS), times_G111)
        dropped_G11 = chosen_share(self.null_share, (num_pictures, 1, 1), device).to(
            features_GPV.dtype
        )
        null_GPV = self.null_PV.to(features_GPV.dtype).expand_as(features_GPV)
        condition_GPV = torch.lerp(features_GPV, null_GPV, dropped_G11)
        predicted_GCSS = self._predict_clean(
            noisy_GCSS, times_G111.flatten() * _TIMES, condition_GPV
        )
        error_GCSS = (predicted_GCSS - clean_GCSS).float() / times_G111.clamp(min=_SMALLEST_TIME)
        return error_GCSS.square().mean((1, 2, 3))

    @torch.no_grad()
    def decode(
        self,
        features_GPV: Tensor,
        *,
        steps: int,
        guidance: float,
        generator: Generator | Sequence[Generator] | None = None,
        empty_PV: Tensor | None = None,
        conditions_G3SS: Tensor | None = None,
        image_guidance: float = 1.5,
    ) -> Tensor:
        """Draw one picture per condition, -> uint8 [G, 3, S, S]; the noise comes from the CPU.

        Raises:
            RequestError: no steps, conditions of another shape, or another number of generators.
        """
        if steps < 1 or features_GPV.shape[1:] != (self.num_tokens, self.width):
            raise RequestError(
                f"decode was asked for {steps} steps on conditions {list(features_GPV.shape)}; "
                f"give at least one step and conditions [G, {self.num_tokens}, {self.width}]."
            )
        from diffusers import FlowMatchEulerDiscreteScheduler  # noqa: PLC0415 - slow import

        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(
            sigmas=[1 - step / steps for step in range(steps)], device=features_GPV.device
        )
        shape = (len(features_GPV), self.channels, self.picture_size, self.picture_size)
        picture_GCSS = draw_noise(shape, generator).to(features_GPV.device, self.null_PV.dtype)
        for time, sigma in zip(scheduler.timesteps, scheduler.sigmas.tolist(), strict=False):
            clean_GCSS = self._guided(
                picture_GCSS, time.expand(len(picture_GCSS)), features_GPV, guidance
            )
            velocity_GCSS = (picture_GCSS - clean_GCSS) / sigma
            picture_GCSS = scheduler.step(velocity_GCSS, time, picture_GCSS, return_dict=False)[0]
        return to_levels(picture_GCSS).expand(-1, 3, -1, -1).contiguous()

    def sharding_units(self) -> Sequence[nn.Module]:
        """Down blocks, middle block, up blocks."""
        return [*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks]

    def _guided(
        self, noisy_GCSS: Tensor, times_G: Tensor, features_GPV: Tensor, guidance: float
    ) -> Tensor:
        if guidance == 1.0:
            return self._predict_clean(noisy_GCSS, times_G, features_GPV)
        both_GPV = torch.cat([features_GPV, self.null_PV.expand_as(features_GPV)])
        both_GCSS = self._predict_clean(noisy_GCSS.repeat(2, 1, 1, 1), times_G.repeat(2), both_GPV)
        with_condition, without = both_GCSS.chunk(2)
        return torch.lerp(without, with_condition, guidance)

    def _predict_clean(self, noisy_GCSS: Tensor, times_G: Tensor, condition_GPV: Tensor) -> Tensor:
        folded = F.pixel_unshuffle(noisy_GCSS, self.pixel_unshuffle)
        grid_GAPP = (
            self.to_grid(condition_GPV).transpose(1, 2).unflatten(2, (self._side, self._side))
        )
        grid_GASS = F.interpolate(grid_GAPP, folded.shape[-2:], mode="nearest").to(folded.dtype)
        states_GPV = condition_GPV + self.positions
        out = self.unet(torch.cat([folded, grid_GASS], 1), times_G, states_GPV, return_dict=False)[
            0
        ]
        return F.pixel_shuffle(out, self.pixel_unshuffle)

    def _check(self, block_channels: tuple[int, ...], num_groups: int, num_heads: int) -> None:
        if self.channels not in (1, 3):
            raise ConfigError(f"FlowImageDecoder draws channels=1 or 3, got {self.channels}.")
        if not block_channels or min(self.pixel_unshuffle, num_groups, num_heads) < 1:
            raise ConfigError(
                f"FlowImageDecoder was asked for block_channels={list(block_channels)}, "
                f"pixel_unshuffle={self.pixel_unshuffle}, num_groups={num_groups}, "
                f"num_heads={num_heads}; give at least one level and numbers from 1 on."
            )
        halvings = self.pixel_unshuffle * 2 ** (len(block_channels) - 1)
        if self.picture_size < 1 or self.picture_size % halvings:
            raise ConfigError(
                f"FlowImageDecoder cannot halve picture_size={self.picture_size} with "
                f"pixel_unshuffle={self.pixel_unshuffle} and {len(block_channels)} levels; it "
                f"must be a multiple of {halvings}."
            )
        if any(count % num_groups or count % num_heads for count in block_channels):
            raise ConfigError(
                f"FlowImageDecoder needs block_channels={list(block_channels)} that are multiples "
                f"of num_groups={num_groups} and of num_heads={num_heads}."
            )


def _build_unet(
    *,
    size: int,
    in_channels: int,
    out_channels: int,
    block_channels: tuple[int, ...],
    layers_per_block: int,
    num_heads: int,
    num_groups: int,
    width: int,
) -> nn.Module:
    from diffusers import UNet2DConditionModel  # noqa: PLC0415 - slow import

    inner = len(block_channels) - 1
    unet = UNet2DConditionModel(
        sample_size=size,
        in_channels=in_channels,
        out_channels=out_channels,
        block_out_channels=block_channels,
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * inner,
        up_block_types=("CrossAttnUpBlock2D",) * inner + ("UpBlock2D",),
        cross_attention_dim=width,
        norm_num_groups=num_groups,
        # Named so for old checkpoints: diffusers reads it as the number of heads.
        attention_head_dim=num_heads,
    )
    fuse_layers(unet)
    return unet
