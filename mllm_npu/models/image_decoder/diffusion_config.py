"""Build parts of diffusers from plain configurations, refusing what they do not know."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import torch

from mllm_npu.errors import ConfigError
from mllm_npu.models.fused_layers import fuse_layers

SDXL_UNET: Mapping[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
"""The UNet of stable-diffusion-xl-base-1.0."""

SDXL_VAE: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 32,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}
"""The autoencoder of stable-diffusion-xl-base-1.0."""

SDXL_SCHEDULER: Mapping[str, Any] = {
    "name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
"""The scheduler of stable-diffusion-xl-base-1.0."""

_EDITED_CHANNELS = 4
_STEP = {"self", "model_output", "timestep", "sample"}
_FITTING = "EulerDiscreteScheduler, DPMSolverMultistepScheduler or DDIMScheduler"
_BETAS = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type")


def build_scheduler(options: Mapping[str, Any]) -> Any:
    """A scheduler of diffusers.

    Args:
        options: ``name`` of its class, and arguments of it. The noise it was trained with is SDXL's
            unless they say otherwise.

    Raises:
        ConfigError: no such scheduler, one for other models, or an argument it does not take.
    """
    import diffusers  # noqa: PLC0415 - slow import

    values = {key: SDXL_SCHEDULER[key] for key in _BETAS} | dict(options)
    name = values.pop("name", None)
    known = sorted(entry for entry in dir(diffusers) if entry.endswith("Scheduler"))
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=3)
        raise ConfigError(
            f"scheduler.name={name!r} was asked for, which diffusers does not have. Near names: "
            f"{', '.join(near) or ', '.join(known[:5])}."
        )
    kind = getattr(diffusers, name)
    if lacking := getattr(kind, "_backends", None):
        raise ConfigError(
            f"scheduler.name={name!r} was asked for, which needs {' and '.join(lacking)}, and not "
            f"all of it is installed. Install it, or choose {_FITTING}."
        )
    taken = set(inspect.signature(kind.__init__).parameters)
    if not (set(_BETAS) <= taken and _needed(kind.step) == _STEP):
        raise ConfigError(
            f"scheduler.name={name!r} was asked for, which is for other models: SDXL has discrete "
            f"times, variances of the noise, and predicts the noise. Choose {_FITTING}."
        )
    given = {key: value for key, value in values.items() if key in taken or key in options}
    # Its tables are no weights, and are read while they are made.
    with torch.device("cpu"):
        return _build(kind, given, f"scheduler {name}")


def build_unet(config: Mapping[str, Any], **changes: Any) -> Any:
    """A UNet with cross-attention; lists become tuples, ``changes`` win.

    Raises:
        ConfigError: an argument it does not take, or sizes that do not fit each other.
    """
    from diffusers import UNet2DConditionModel  # noqa: PLC0415 - slow import

    unet = _build(UNet2DConditionModel, {**config, **changes}, "unet")
    fuse_layers(unet)
    return unet


def build_vae(config: Mapping[str, Any]) -> Any:
    """An autoencoder with a normal posterior.

    Raises:
        ConfigError: an argument it does not take, or sizes that do not fit each other.
    """
    from diffusers import AutoencoderKL  # noqa: PLC0415 - slow import

    return _build(AutoencoderKL, config, "vae")


def find_pipeline(name: str) -> Any:
    """A pipeline class of diffusers, without what transformers says of processors it lacks."""
    from transformers.utils import logging  # noqa: PLC0415 - with the import it silences

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        import diffusers  # noqa: PLC0415 - slow import

        return getattr(diffusers, name)
    finally:
        logging.set_verbosity(level)


def latent_shrink(vae: Any) -> int:
    """How many pixels of an edge one latent of an autoencoder's configuration stands for."""
    return int(2 ** (len(vae.block_out_channels) - 1))


def set_tile_size(vae: Any, latent_size: int) -> None:
    """Let an autoencoder decode in tiles of half an edge; its own are as large as its pictures.

    A tile is a multiple of 4 latents, so that its overlap, a quarter, is whole.
    """
    tile = max(4, latent_size // 8 * 4)
    vae.tile_latent_min_size, vae.tile_sample_min_size = tile, tile * latent_shrink(vae.config)


def check_sizes(decoder: Any, unet: Any, vae: Any) -> None:
    """Refuse an SDXL-style decoder whose parts do not fit each other.

    Args:
        decoder: with ``width``, ``picture_size``, ``null_share``, ``takes_condition`` and
            ``resampler``.
        unet: configuration of its UNet.
        vae: configuration of its autoencoder.

    Raises:
        ConfigError: names both numbers.
    """
    resampler, name = decoder.resampler, type(decoder).__name__
    halvings = latent_shrink(vae) * 2 ** (len(unet.block_out_channels) - 1)
    if decoder.picture_size < 1 or decoder.picture_size % halvings:
        raise ConfigError(
            f"{name} cannot halve picture_size={decoder.picture_size} as often as its autoencoder "
            f"and UNet do; give a multiple of {halvings}."
        )
    added = resampler.pooled_dim + 6 * (unet.addition_time_embed_dim or 0)
    pairs = (
        ("resampler.embedding_dim", resampler.embedding_dim, "width", decoder.width),
        (
            "resampler.output1_dim + output2_dim",
            resampler.prompt_dim,
            "unet.cross_attention_dim",
            unet.cross_attention_dim,
        ),
        (
            "resampler.output2_dim + 6 * unet.addition_time_embed_dim",
            added,
            "unet.projection_class_embeddings_input_dim",
            unet.projection_class_embeddings_input_dim,
        ),
        ("unet.out_channels", unet.out_channels, "vae.latent_channels", vae.latent_channels),
    )
    for part, value, other, needed in pairs:
        if value != needed:
            raise ConfigError(f"{part}={value} does not fit {other}={needed}; make them equal.")
    if decoder.takes_condition and vae.latent_channels != _EDITED_CHANNELS:
        raise ConfigError(
            f"{name} was given vae.latent_channels={vae.latent_channels}; diffusers knows the "
            f"latents of a picture in view by their {_EDITED_CHANNELS} channels, so there must be "
            "as many."
        )
    if not 0 <= decoder.null_share <= 1:
        raise ConfigError(
            f"{name} was asked for null_share={decoder.null_share}; give a share from 0 to 1."
        )


def _needed(function: Any) -> set[str]:
    """Arguments without which a function cannot be called."""
    parameters = inspect.signature(function).parameters.values()
    return {entry.name for entry in parameters if entry.default is entry.empty}


def _build(kind: Any, values: Mapping[str, Any], part: str) -> Any:
    taken = list(inspect.signature(kind.__init__).parameters)[1:]
    for key in values:
        if key not in taken:
            near = difflib.get_close_matches(key, taken, n=3)
            raise ConfigError(
                f"{part} was given {key!r}, which {kind.__name__} does not take. Near names: "
                f"{', '.join(near) or 'none'}."
            )
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    try:
        return kind(**given)
    except (ValueError, TypeError, NotImplementedError, IndexError, AssertionError) as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(f"{part} cannot be built as {kind.__name__}: {said}") from error
