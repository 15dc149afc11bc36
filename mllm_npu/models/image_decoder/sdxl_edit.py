"""Draw with a second picture in view: the de-tokenizer that edits.

Shape letters: G pictures, S pixels of an edge, C latent channels, H W latent grid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mllm_npu.errors import RequestError
from mllm_npu.models.image_decoder.diffusion_config import find_pipeline
from mllm_npu.models.image_decoder.sdxl import SDXLImageDecoder


class SDXLEditImageDecoder(SDXLImageDecoder):
    """`SDXLImageDecoder` whose UNet sees the latents of the picture it changes beside the noise.

    Its first layer takes twice the channels; loaded from one that does not, the new ones start at
    zero. Guidance is over the features and over the picture: with both, with the picture alone, and
    with neither are combined.

    Source: InstructPix2Pix (Brooks et al. 2023); the second stage of SEED-X's de-tokenizer.
    """

    takes_condition = True
    _condition_channels = 1

    def _view(self, conditions_GCHW: Tensor | None) -> Tensor | None:
        """Means of the latents of the pictures in view, not scaled, float [G, C, H, W]."""
        if conditions_GCHW is None:
            raise RequestError(
                "The image decoder changes a picture, and the loss was given none; set the "
                "processor's condition_pictures=true."
            )
        return conditions_GCHW.chunk(2, 1)[0]

    def _view_options(
        self,
        conditions_G3SS: Tensor | None,
        features_GPV: Tensor,
        guidance: float,
        image_guidance: float,
    ) -> dict[str, Any]:
        num_pictures, device = len(features_GPV), features_GPV.device
        if guidance > 1 and image_guidance < 1:  # diffusers would leave out both without a word
            raise RequestError(
                f"image_guidance={image_guidance} was asked for beside guidance={guidance}; give "
                "1 or more (1 switches it off), or guidance=1."
            )
        if conditions_G3SS is not None and len(conditions_G3SS) != num_pictures:
            raise RequestError(
                f"decode was given {len(conditions_G3SS)} pictures to change and features of "
                f"{num_pictures}; give one per row of features, or none."
            )
        if conditions_G3SS is None:
            size, channels = self.latent_size, int(self.vae.config.latent_channels)
            latents_GCHW = torch.zeros(num_pictures, channels, size, size, device=device)
        else:
            latents_GCHW = self.encode_pictures(conditions_G3SS.to(device)).chunk(2, 1)[0]
        return {"image": latents_GCHW, "image_guidance_scale": image_guidance}

    def _run_pipeline(self, **options: Any) -> Any:
        stock = find_pipeline("StableDiffusionXLInstructPix2PixPipeline")

        class Pipeline(stock):  # type: ignore[misc, valid-type]
            """Takes the latents of the picture in the type of the UNet, not of the autoencoder."""

            def prepare_image_latents(self, *given: Any, **named: Any) -> Any:
                latents = super().prepare_image_latents(*given, **named)
                return latents.to(self.unet.dtype)

        return self._call(Pipeline, options)
