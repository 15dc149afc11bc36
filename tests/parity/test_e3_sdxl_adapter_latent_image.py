"""The editing de-tokenizer against the original's."""

import pytest
import torch

from mllm_npu.models.image_decoder.sdxl_edit import SDXLEditImageDecoder

GOLDEN = "e3_sdxl_adapter_latent_image"


@pytest.fixture
def model(detokenizer, golden, take):
    tensors, _ = golden(GOLDEN)
    return detokenizer(SDXLEditImageDecoder, take(tensors, "w."))


def test_a_training_step(golden, model, deviation):
    tensors, _ = golden(GOLDEN)
    common, _ = golden("e2_sdxl_adapter")
    with torch.no_grad():
        noisy, view = tensors["in.lat8"].chunk(2, 1)
        predicted = model.image_decoder.predict_noise(
            noisy, common["in.timesteps"], common["in.emb"], view, common["in.time_ids"]
        )
    deviation(GOLDEN, predicted, tensors["out.noise_pred"], atol=1e-4)
    loss = (predicted - common["in.noise"]).square().mean()
    deviation(GOLDEN, loss, tensors["out.loss"], atol=0, rtol=1e-5)


def picture(tensors):
    return tensors["in.src_image"].permute(2, 0, 1)[None]


def test_latents_of_the_picture_in_view(golden, model, deviation):
    tensors, _ = golden(GOLDEN)
    mean = model.image_decoder.encode_pictures(picture(tensors)).chunk(2, 1)[0]
    deviation(GOLDEN, mean, tensors["out.edit.image_latents"])


@pytest.mark.parametrize("case", ["edit", "noimage"])
def test_drawn_latents(golden, model, deviation, case):
    """The original combines in the space of clean latents, which is the same for this model."""
    tensors, meta = golden(GOLDEN)
    common, _ = golden("e2_sdxl_adapter")
    latents = model.image_decoder.sample_latents(
        common["in.feat"],
        common["in.init_noise_seed42"],
        steps=meta["generate"]["steps"],
        guidance=meta["generate"]["guidance_scale"],
        empty_PV=model.empty_features(),
        conditions_G3SS=picture(tensors) if case == "edit" else None,
        image_guidance=meta["generate"]["image_guidance_scale"],
    )
    deviation(GOLDEN, latents, tensors[f"out.{case}.latent_steps3"], atol=1e-4)
