"""The editing decoder: the picture it changes is seen, and guided by, as a plain loop does it."""

import pytest
import torch

from mllm_npu.errors import ConfigError, RequestError


def plain_loop(decoder, features, empty, noise, view, *, steps, guidance, image_guidance):
    """In the space of clean latents, as the original combines: three UNet calls per step."""
    scheduler = decoder.scheduler
    scheduler.set_timesteps(steps)
    latents = noise * scheduler.init_noise_sigma
    nothing = torch.zeros_like(view)
    for number, time in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[number]
        scaled, times = scheduler.scale_model_input(latents, time), time.expand(len(latents))
        untold = empty.expand_as(features)
        told, seen, neither = (
            latents - sigma * decoder.predict_noise(scaled, times, said, shown)
            for said, shown in ((features, view), (untold, view), (untold, nothing))
        )
        clean = neither + guidance * (told - seen) + image_guidance * (seen - neither)
        combined = (latents - clean) / sigma
        latents = scheduler.step(combined, time, latents, return_dict=False)[0]
    return latents


@pytest.mark.parametrize("shown", [True, False])
def test_sampling_equals_a_plain_loop(make_sdxl, pictures, shown):
    decoder = make_sdxl(edit=True)
    features, empty, noise = torch.randn(2, 4, 6), torch.randn(4, 6), torch.randn(2, 4, 4, 4)
    options = {"steps": 4, "guidance": 3.0, "image_guidance": 1.7}
    found = decoder.sample_latents(
        features, noise, empty_PV=empty, conditions_G3SS=pictures if shown else None, **options
    )
    view = decoder.encode_pictures(pictures).chunk(2, 1)[0]
    with torch.no_grad():
        truth = plain_loop(
            decoder, features, empty, noise, view if shown else torch.zeros_like(view), **options
        )
    torch.testing.assert_close(found, truth, atol=1e-4, rtol=1e-4)


def test_the_loss_sees_the_picture_it_changes(make_sdxl, pictures):
    decoder = make_sdxl(edit=True)
    encoded, features = decoder.encode_pictures(pictures), torch.randn(2, 4, 6)
    losses = []
    for conditions in (encoded, torch.zeros_like(encoded)):
        torch.manual_seed(3)
        losses.append(decoder.loss(encoded, features, conditions_GCHW=conditions))
    assert not torch.allclose(*losses)
    with pytest.raises(RequestError, match="condition_pictures=true"):
        decoder.loss(encoded, features)


def test_its_first_layer_takes_twice_the_channels(make_sdxl):
    decoder = make_sdxl(edit=True)
    assert decoder.takes_condition
    assert decoder.unet.conv_in.weight.shape[1] == 8
    plain = make_sdxl()
    assert not plain.takes_condition
    assert plain.unet.conv_in.weight.shape[1] == 4


def test_what_would_be_left_out_or_guessed_is_refused(make_sdxl, pictures):
    decoder, features = make_sdxl(edit=True), torch.randn(2, 4, 6)
    options = {"steps": 1, "empty_PV": torch.randn(4, 6)}
    with pytest.raises(RequestError, match=r"image_guidance=0\.5 .*give 1 or more"):
        decoder.decode(features, guidance=2.0, image_guidance=0.5, **options)
    assert len(decoder.decode(features, guidance=1.0, image_guidance=0.5, **options)) == 2
    with pytest.raises(RequestError, match="1 pictures to change and features of 2"):
        decoder.decode(features, guidance=2.0, conditions_G3SS=pictures[:1], **options)
    with pytest.raises(ConfigError, match=r"vae.latent_channels=8.* 4 channels"):
        make_sdxl(
            edit=True,
            vae=given(decoder.vae) | {"latent_channels": 8},
            unet=given(decoder.unet) | {"out_channels": 8},
        )


def given(part):
    return {key: value for key, value in part.config.items() if not key.startswith("_")}


def test_half_precision(make_sdxl, pictures):
    decoder = make_sdxl(edit=True, dtype="bfloat16")
    drawn = decoder.decode(
        torch.randn(2, 4, 6),
        steps=2,
        guidance=2.0,
        empty_PV=torch.randn(4, 6),
        conditions_G3SS=pictures,
    )
    assert drawn.shape == (2, 3, 8, 8)
