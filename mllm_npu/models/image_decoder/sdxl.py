"""Draw with a Stable Diffusion XL UNet that is told vision features instead of a text.

Shape letters: G pictures, S pixels of an edge, C latent channels, H W latent grid, P features of a
picture, V their width, Q text tokens, X width of a text token, Y width of a pooled text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn

from mllm_npu.device.transfer import to_device
from mllm_npu.errors import RequestError
from mllm_npu.models.huggingface_config import resolve_dtype
from mllm_npu.models.image_decoder.diffusion_config import (
    SDXL_SCHEDULER,
    SDXL_UNET,
    SDXL_VAE,
    build_scheduler,
    build_unet,
    build_vae,
    check_sizes,
    find_pipeline,
    latent_shrink,
    set_tile_size,
)
from mllm_npu.models.image_decoder.noise import chosen_share, draw_noise, noise_like
from mllm_npu.models.image_decoder.pixels import to_levels, to_pixels
from mllm_npu.models.image_decoder.resampler import ResamplerXLV2
from mllm_npu.models.image_decoder.training_noise import TrainingNoise
from mllm_npu.models.interfaces import ImageDecoder

_CPU = torch.device("cpu")


class SDXLImageDecoder(ImageDecoder):
    """SEED-X's de-tokenizer: a resampler tells the UNet of SDXL what the picture looks like.

    To train resampler and cross-attention alone, as SEED-X did first, the patterns are
    ``image_decoder.resampler.*``, ``image_decoder.unet.*.attn2.to_k.*`` and ``...to_v.*``.

    Args:
        width: V.
        num_tokens: P, features a picture is drawn from; the resampler itself takes any number.
        picture_size: S.
        resampler: turns features into text tokens.
        unet: configuration of a diffusers UNet2DConditionModel; None: that of SDXL.
        vae: configuration of a diffusers AutoencoderKL, always frozen, in float32; None: SDXL's.
        scheduler: ``name`` of a diffusers scheduler and its arguments; None: SDXL's, Euler.
        null_share: share of training pictures whose features are replaced by those of the empty
            tile, for guidance.
        min_snr_gamma: largest signal-to-noise ratio that counts in the loss; None weighs all times
            alike.
        vae_tiling: decode latents in overlapping tiles of half an edge, which takes less memory.
        offload: UNet and autoencoder wait on the CPU and come to the accelerator while they draw;
            to train on an accelerator they must not.
        dtype: "float32", "bfloat16" or "float16" of UNet and resampler.

    Raises:
        ConfigError: sizes that do not fit each other, or options that diffusers does not know.

    Source: SEED-X (Ge et al. 2024); SDXL (Podell et al. 2023); min-SNR (Hang et al. 2023).
    """

    needs_empty = True
    unet: Any
    vae: Any
    _condition_channels = 0

    def __init__(
        self,
        *,
        width: int,
        num_tokens: int,
        resampler: ResamplerXLV2,
        picture_size: int = 1024,
        unet: Mapping[str, Any] | None = None,
        vae: Mapping[str, Any] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        null_share: float = 0.1,
        min_snr_gamma: float | None = None,
        vae_tiling: bool = False,
        offload: bool = False,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        self.width, self.num_tokens, self.picture_size = width, num_tokens, picture_size
        self.null_share, self.offload, self.vae_tiling = null_share, offload, vae_tiling
        self.vae = build_vae(SDXL_VAE if vae is None else vae).requires_grad_(False).eval()
        self.latent_size = picture_size // latent_shrink(self.vae.config)
        unet = SDXL_UNET if unet is None else unet
        channels = int(self.vae.config.latent_channels)
        in_channels = channels + self._condition_channels * channels
        self.unet = build_unet(unet, in_channels=in_channels, sample_size=self.latent_size)
        self.resampler = resampler
        check_sizes(self, self.unet.config, self.vae.config)
        kind = resolve_dtype(dtype, part=type(self).__name__)
        if kind != torch.float32:
            # Its own ``to`` warns of layers that must stay float32, also where it lists none.
            nn.Module.to(self.unet, kind)
            self.resampler.to(kind)
        if vae_tiling:
            set_tile_size(self.vae, self.latent_size)
        self.scheduler = build_scheduler(SDXL_SCHEDULER if scheduler is None else scheduler)
        self.noise = TrainingNoise(self.scheduler.config, min_snr_gamma=min_snr_gamma)
        self._negative: tuple[Tensor, list[tuple[int, int]], tuple[Tensor, Tensor]] | None = None

    def whole_parts(self) -> Sequence[nn.Module]:
        """Parts that compute in their own dtype, so that every rank holds all of them."""
        return [self.vae]

    @torch.no_grad()
    def encode_pictures(self, pictures_G3SS: Tensor) -> Tensor:
        """Mean and log variance of the latents, uint8 [G, 3, S, S] -> float32 [G, 2 C, H, W].

        Raises:
            RequestError: pictures of another size.
        """
        pixels = to_pixels(pictures_G3SS, self.picture_size)
        with self._at_work(self.vae, pictures_G3SS.device), _no_autocast(pictures_G3SS.device):
            return self.vae.encode(pixels).latent_dist.parameters

    def loss(
        self,
        encoded_GCHW: Tensor,
        features_GPV: Tensor,
        *,
        conditions_GCHW: Tensor | None = None,
        empty_PV: Tensor | None = None,
    ) -> Tensor:
        """Squared error of the noise of each picture at a random time, float32 [G].

        Raises:
            RequestError: the UNet waits on the CPU, or no picture in view where one is needed.
        """
        if self.offload and encoded_GCHW.device != _CPU:
            raise RequestError(
                f"The image decoder was asked to learn on {encoded_GCHW.device} while its UNet "
                "waits on the CPU; set image_decoder.offload=false to train."
            )
        mean, log_variance = encoded_GCHW.float().chunk(2, 1)
        deviation = (0.5 * log_variance.clamp(-30, 20)).exp()
        latents = (mean + deviation * noise_like(mean)) * self.vae.config.scaling_factor
        device, num_pictures = mean.device, len(mean)
        times_G = to_device(
            torch.randint(0, self.noise.num_times, (num_pictures,), device="cpu"), device
        )
        noise = noise_like(latents)
        if empty_PV is not None and self.null_share > 0:
            dropped_G11 = chosen_share(self.null_share, (num_pictures, 1, 1), device)
            features_GPV = torch.where(dropped_G11, empty_PV.to(features_GPV), features_GPV)
        view = self._view(conditions_GCHW)
        noisy = self.noise.add(latents, noise, times_G)
        predicted = self.predict_noise(noisy, times_G, features_GPV, view)
        errors_G = (predicted.float() - noise).square().mean((1, 2, 3))
        return errors_G * self.noise.loss_weights(times_G)

    def predict_noise(
        self,
        noisy_GCHW: Tensor,
        times_G: Tensor,
        features_GPV: Tensor,
        view_GCHW: Tensor | None = None,
        size_ids_G6: Tensor | None = None,
    ) -> Tensor:
        """What the UNet takes for noise, float [G, C, H, W].

        Args:
            noisy_GCHW: latents with noise.
            times_G: of the training schedule, int64.
            features_GPV: what the picture looks like.
            view_GCHW: latents of the picture in view, where the decoder takes one.
            size_ids_G6: original height and width, crop, target height and width; None: S, without
                a crop.
        """
        tokens_GQX, pooled_GY = self.resampler(features_GPV.to(self.resampler.latents.dtype))
        if size_ids_G6 is None:
            size = self.picture_size
            size_ids_G6 = torch.tensor([[size, size, 0, 0, size, size]], device="cpu")
            size_ids_G6 = to_device(size_ids_G6, times_G.device)
            size_ids_G6 = size_ids_G6.expand(len(times_G), -1)
        seen = noisy_GCHW if view_GCHW is None else torch.cat([noisy_GCHW, view_GCHW], 1)
        return self.unet(
            seen.to(self.unet.dtype),
            times_G,
            encoder_hidden_states=tokens_GQX,
            added_cond_kwargs={"text_embeds": pooled_GY, "time_ids": size_ids_G6},
            return_dict=False,
        )[0]

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
        """Draw one picture per row of features, -> uint8 [G, 3, S, S]; the noise is the CPU's.

        Guidance of 1 and less is none. A scheduler that adds noise at its steps draws it from the
        generators too.

        Raises:
            RequestError: steps that the scheduler does not take, features of another width, another
                number of generators, or guidance without the empty tile's features.
        """
        size = self.latent_size
        shape = (len(features_GPV), int(self.vae.config.latent_channels), size, size)
        latents_GCHW = self.sample_latents(
            features_GPV,
            draw_noise(shape, generator),
            steps=steps,
            guidance=guidance,
            empty_PV=empty_PV,
            generator=generator,
            conditions_G3SS=conditions_G3SS,
            image_guidance=image_guidance,
        )
        return self.decode_latents(latents_GCHW)

    @torch.no_grad()
    def sample_latents(
        self,
        features_GPV: Tensor,
        noise_GCHW: Tensor,
        *,
        steps: int,
        guidance: float,
        generator: Generator | Sequence[Generator] | None = None,
        empty_PV: Tensor | None = None,
        conditions_G3SS: Tensor | None = None,
        image_guidance: float = 1.5,
    ) -> Tensor:
        """Latents of a picture per row of features, float [G, C, H, W]; see ``decode``."""
        self._require(features_GPV, steps, guidance, empty_PV)
        device = features_GPV.device
        view = self._view_options(conditions_G3SS, features_GPV, guidance, image_guidance)
        with self._at_work(self.resampler, device), self._at_work(self.unet, device):
            kind = self.unet.dtype
            tokens_GQX, pooled_GY = self.resampler(features_GPV.to(kind))
            said = {"prompt_embeds": tokens_GQX, "pooled_prompt_embeds": pooled_GY}
            if guidance > 1 and empty_PV is not None:
                nothing, pooled_nothing = self.say_nothing(empty_PV.to(device))
                said["negative_prompt_embeds"] = nothing.expand_as(tokens_GQX)
                said["negative_pooled_prompt_embeds"] = pooled_nothing.expand_as(pooled_GY)
            return self._run_pipeline(
                **said,
                latents=noise_GCHW.to(device, kind),
                generator=list(generator) if isinstance(generator, Sequence) else generator,
                num_inference_steps=steps,
                guidance_scale=guidance,
                height=self.picture_size,
                width=self.picture_size,
                output_type="latent",
                **view,
            ).images

    def decode_latents(self, latents_GCHW: Tensor) -> Tensor:
        """Pictures of latents, float [G, C, H, W] -> uint8 [G, 3, S, S]."""
        device = latents_GCHW.device
        with self._at_work(self.vae, device), _no_autocast(device), torch.no_grad():
            decode = self.vae.tiled_decode if self.vae_tiling else self.vae.decode
            pixels = decode(latents_GCHW.float() / self.vae.config.scaling_factor).sample
        return to_levels(pixels)

    def say_nothing(self, empty_PV: Tensor) -> tuple[Tensor, Tensor]:
        """Text tokens [1, Q, X] and pooled text [1, Y] of the empty tile, computed once.

        They are kept until the empty features or the resampler's weights change.
        """
        weights_now = [(p.data_ptr(), p._version) for p in self.resampler.parameters()]
        kept = self._negative
        if kept is None or kept[0] is not empty_PV or kept[1] != weights_now:
            with torch.no_grad():
                said = self.resampler(empty_PV[None].to(self.resampler.latents.dtype))
            kept = self._negative = (empty_PV, weights_now, said)
        return kept[2]

    def sharding_units(self) -> Sequence[nn.Module]:
        """Down blocks, middle block, up blocks of the UNet."""
        return [*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks]

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; the autoencoder is always evaluated."""
        super().train(mode)
        self.vae.eval()
        self._negative = None
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if not self.offload:
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # What waits stays where it is: a move of the model changes the type alone.
        return super()._apply(lambda value: _stay(fn(value)), recurse)  # type: ignore[no-untyped-call]

    def _require(
        self, features_GPV: Tensor, steps: int, guidance: float, empty_PV: Tensor | None
    ) -> None:
        if steps < 1 or features_GPV.shape[-1] != self.width:
            raise RequestError(
                f"decode was asked for {steps} steps on features {list(features_GPV.shape)}; "
                f"give at least one step and features of width {self.width}."
            )
        if guidance > 1 and empty_PV is None:
            raise RequestError(
                f"guidance={guidance} was asked for without the features of the empty tile; give "
                "empty_PV, or guidance=1."
            )
        try:
            self.scheduler.set_timesteps(steps)
        except ValueError as error:
            raise RequestError(
                f"decode was asked for {steps} steps, which {type(self.scheduler).__name__} does "
                f"not take: {error} Give another number, or another scheduler."
            ) from error

    def _view(self, conditions_GCHW: Tensor | None) -> Tensor | None:
        """Latents of the pictures in view; a plain decoder has none."""
        return None

    def _view_options(
        self,
        conditions_G3SS: Tensor | None,
        features_GPV: Tensor,
        guidance: float,
        image_guidance: float,
    ) -> dict[str, Any]:
        """What the pipeline takes beside the features; nothing for a plain decoder."""
        return {}

    def _run_pipeline(self, **options: Any) -> Any:
        return self._call(find_pipeline("StableDiffusionXLPipeline"), options)

    def _call(self, kind: Any, options: Mapping[str, Any]) -> Any:
        """Run a pipeline that has no text encoders; it is made anew, which copies nothing."""
        absent = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
        pipeline = kind(
            vae=self.vae, unet=self.unet, scheduler=self.scheduler, add_watermarker=False, **absent
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(**options)

    @contextmanager
    def _at_work(self, part: nn.Module, device: torch.device) -> Iterator[None]:
        """Bring a part to where it works, and back where it waits on the CPU."""
        if self.offload:
            part.to(device)
        try:
            yield
        finally:
            if self.offload:
                part.to(_CPU)


def _no_autocast(device: torch.device) -> torch.autocast:
    """The autoencoder of SDXL overflows in half precision."""
    return torch.autocast(device.type, enabled=False)


def _stay(value: Tensor) -> Tensor:
    return value if value.is_meta else value.to(_CPU)
