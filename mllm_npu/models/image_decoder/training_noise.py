"""The noise an SDXL-style decoder is trained with, and how much each time counts.

Shape letters: G pictures, C latent channels, H W latent grid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mllm_npu.device.transfer import to_device
from mllm_npu.errors import ConfigError


class TrainingNoise:
    """A schedule of variances over discrete times; no part of the weights.

    Args:
        config: of a diffusers scheduler, for its betas and ``num_train_timesteps``.
        min_snr_gamma: largest signal-to-noise ratio that counts; None weighs all times alike.

    Raises:
        ConfigError: a gamma that is not above 0, or a model that does not predict the noise.

    Source: DDPM (Ho et al. 2020); min-SNR (Hang et al. 2023), for models that predict the noise.
    """

    def __init__(self, config: Any, *, min_snr_gamma: float | None = None) -> None:
        if min_snr_gamma is not None and not min_snr_gamma > 0:
            raise ConfigError(
                f"min_snr_gamma={min_snr_gamma} was asked for; give a number above 0, or null."
            )
        if config.prediction_type != "epsilon":
            raise ConfigError(
                f"scheduler.prediction_type={config.prediction_type!r} was asked for; the decoder "
                "predicts the noise, so it must be epsilon."
            )
        from diffusers import DDPMScheduler  # noqa: PLC0415 - slow import

        with torch.device("cpu"):
            schedule = DDPMScheduler(
                num_train_timesteps=config.num_train_timesteps,
                beta_start=config.beta_start,
                beta_end=config.beta_end,
                beta_schedule=config.beta_schedule,
                trained_betas=config.get("trained_betas"),
                rescale_betas_zero_snr=config.get("rescale_betas_zero_snr", False),
            )
        self.min_snr_gamma = min_snr_gamma
        self._signal: Tensor = schedule.alphas_cumprod

    @property
    def num_times(self) -> int:
        """Number of times, from almost clean to almost noise."""
        return len(self._signal)

    def add(self, latents_GCHW: Tensor, noise_GCHW: Tensor, times_G: Tensor) -> Tensor:
        """Latents as they are at a time, float [G, C, H, W]."""
        signal_G111 = self._at(times_G)[:, None, None, None]
        return signal_G111.sqrt() * latents_GCHW + (1 - signal_G111).sqrt() * noise_GCHW

    def loss_weights(self, times_G: Tensor) -> Tensor:
        """Weight of the squared error of the noise, float32 [G]: min(SNR, gamma) / SNR, or 1."""
        if self.min_snr_gamma is None:
            return torch.ones(len(times_G), device=times_G.device)
        signal_G = self._at(times_G)
        return (self.min_snr_gamma * (1 - signal_G) / signal_G).clamp(max=1)

    def _at(self, times_G: Tensor) -> Tensor:
        if self._signal.device != times_G.device and not times_G.is_meta:
            self._signal = to_device(self._signal, times_G.device)
        return self._signal.to(times_G.device)[times_G]
