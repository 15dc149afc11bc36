"""The de-tokenizer against the original's: training step, conditions, drawn latents and pixels."""

import pytest
import torch

from mllm_npu.models.image_decoder import sdxl
from mllm_npu.models.image_decoder.sdxl import SDXLImageDecoder

GOLDEN = "e2_sdxl_adapter"


@pytest.fixture
def model(detokenizer):
    return detokenizer(SDXLImageDecoder)


def predict(decoder, tensors):
    """The original is given latents that have their noise already."""
    return decoder.predict_noise(
        tensors["in.lat"],
        tensors["in.timesteps"],
        tensors["in.emb"],
        size_ids_G6=tensors["in.time_ids"],
    )


def test_a_training_step(golden, model, deviation):
    tensors, meta = golden(GOLDEN)
    predicted = predict(model.image_decoder, tensors)
    deviation(GOLDEN, predicted.detach(), tensors["out.noise_pred"], atol=1e-4)
    loss = (predicted - tensors["in.noise"]).square().mean()
    deviation(GOLDEN, loss.detach(), tensors["out.loss"], atol=0, rtol=1e-5)
    loss.backward()
    gradients = {
        name: parameter.grad.norm()
        for name, parameter in model.image_decoder.named_parameters()
        if parameter.grad is not None
    }
    for name, norm in meta["grad_norms"].items():
        # The bias of a key changes all scores of a query alike, so its gradient is rounding.
        deviation(GOLDEN, gradients[name], norm, atol=1e-9, rtol=1e-5, what=name)


def test_the_loss_is_the_mean_of_what_the_step_gives(golden, model, monkeypatch):
    """``loss`` draws latents, noise and times; given the recorded ones it is the recorded error."""
    tensors, _ = golden(GOLDEN)
    decoder = model.image_decoder
    monkeypatch.setattr(decoder.noise, "add", lambda latents, noise, times: tensors["in.lat"])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: tensors["in.timesteps"])
    monkeypatch.setattr(sdxl, "noise_like", lambda _: tensors["in.noise"])
    losses = decoder.loss(torch.zeros(2, 8, 16, 16), tensors["in.emb"])
    # Recorded with times and sizes of its own; only the sizes differ.
    expected = decoder.predict_noise(tensors["in.lat"], tensors["in.timesteps"], tensors["in.emb"])
    truth = (expected - tensors["in.noise"]).square().mean((1, 2, 3))
    torch.testing.assert_close(losses, truth)


def test_conditions(golden, model, deviation):
    tensors, _ = golden(GOLDEN)
    resampler = model.image_decoder.resampler
    with torch.no_grad():
        said = {
            "gen.prompt": resampler(tensors["in.feat"]),
            "gen.neg": model.image_decoder.say_nothing(model.empty_features()),
            # A picture itself goes in without pooling, 64 features instead of 16.
            "tensor.prompt": resampler(model.vision_encoder.encode_pixels(tensors["in.px"])),
        }
    for name, (tokens, pooled) in said.items():
        deviation(GOLDEN, tokens, tensors[f"out.{name}"], atol=1e-4, what=name)
        name = name.replace("prompt", "pooled").replace("neg", "neg_pooled")
        deviation(GOLDEN, pooled, tensors[f"out.{name}"], atol=1e-4, what=name)


@pytest.mark.parametrize("steps", [1, 4])
def test_drawn_latents_and_pixels(golden, model, deviation, steps):
    tensors, meta = golden(GOLDEN)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(42))
    deviation(GOLDEN, noise, tensors["in.init_noise_seed42"], atol=0, what="starting noise")
    latents = model.image_decoder.sample_latents(
        tensors["in.feat"],
        noise,
        steps=steps,
        guidance=meta["generate"]["guidance_scale"],
        empty_PV=model.empty_features(),
    )
    deviation(GOLDEN, latents, tensors[f"out.gen.latent_steps{steps}"], atol=1e-4)
    if steps == 4:
        pixels = model.image_decoder.decode_latents(latents).permute(0, 2, 3, 1) / 255
        # Ours are whole levels of 255, so they may be half a level away.
        assert (pixels - tensors["out.gen.image_steps4"]).abs().max() < 0.51 / 255
