"""The SDXL-style decoder: its loss, its sampling against a plain loop, what is trained of it."""

import pytest
import torch
from torch import Generator

from mllm_npu.errors import ConfigError, RequestError
from mllm_npu.train.trainable import set_trainable

DPM = {
    "name": "DPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "use_karras_sigmas": True,
}


@pytest.fixture
def features():
    return torch.randn(2, 4, 6)


@pytest.fixture
def empty():
    return torch.randn(4, 6)


def test_pictures_become_means_and_variances_of_latents(make_sdxl, pictures):
    decoder = make_sdxl()
    encoded = decoder.encode_pictures(pictures)
    assert encoded.shape == (2, 8, 4, 4)
    assert not encoded.requires_grad
    truth = decoder.vae.encode(pictures.float() / 127.5 - 1).latent_dist
    torch.testing.assert_close(encoded[:, :4], truth.mean)
    torch.testing.assert_close(encoded[:, 4:].clamp(-30, 20), truth.logvar)
    with pytest.raises(RequestError, match="picture_size to 8"):
        decoder.encode_pictures(torch.zeros(1, 3, 9, 9, dtype=torch.uint8))


def test_the_loss_of_each_picture_reaches_resampler_and_unet_but_not_the_autoencoder(
    make_sdxl, pictures, features
):
    decoder = make_sdxl()
    losses = decoder.loss(decoder.encode_pictures(pictures), features)
    assert losses.shape == (2,)
    assert losses.dtype == torch.float32
    losses.sum().backward()
    for name, parameter in decoder.named_parameters():
        assert (parameter.grad is None) == name.startswith("vae."), name
    assert not decoder.train().vae.training


def test_the_loss_is_the_weighted_error_of_the_noise(make_sdxl, pictures, features, monkeypatch):
    decoder = make_sdxl(min_snr_gamma=5.0)
    seen = {}

    def predict(noisy, times, given, view=None):
        seen.update(noisy=noisy, times=times)
        return torch.zeros_like(noisy)

    monkeypatch.setattr(decoder, "predict_noise", predict)
    noise = torch.randn(2, 4, 4, 4)
    monkeypatch.setattr("mllm_npu.models.image_decoder.sdxl.noise_like", lambda _: noise)
    encoded = decoder.encode_pictures(pictures)
    losses = decoder.loss(encoded, features)
    mean, log_variance = encoded.chunk(2, 1)
    latents = (mean + (0.5 * log_variance).exp() * noise) * 0.5
    torch.testing.assert_close(seen["noisy"], decoder.noise.add(latents, noise, seen["times"]))
    expected = noise.square().mean((1, 2, 3)) * decoder.noise.loss_weights(seen["times"])
    torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 64)])
def test_a_share_of_pictures_is_learnt_from_the_empty_tile(
    make_sdxl, empty, monkeypatch, share, expected
):
    decoder, seen = make_sdxl(null_share=share), []

    def predict(noisy, times, given, view=None):
        seen.append((given == empty).all((1, 2)).sum().item())
        return noisy

    monkeypatch.setattr(decoder, "predict_noise", predict)
    decoder.loss(torch.zeros(64, 8, 4, 4), torch.randn(64, 4, 6), empty_PV=empty)
    assert seen == [expected]


def plain_loop(decoder, features, empty, noise, *, steps, guidance):
    """Euler steps written out: one UNet call per side of the guidance, one step per time."""
    scheduler = decoder.scheduler
    scheduler.set_timesteps(steps)
    latents = noise * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, time)
        times = time.expand(len(latents))
        told = decoder.predict_noise(scaled, times, features)
        untold = decoder.predict_noise(scaled, times, empty.expand_as(features))
        combined = untold + guidance * (told - untold)
        latents = scheduler.step(combined, time, latents, return_dict=False)[0]
    return latents


@pytest.mark.parametrize("scheduler", [None, DPM])
def test_sampling_equals_a_plain_loop(make_sdxl, features, empty, scheduler):
    decoder, noise = make_sdxl(scheduler=scheduler), torch.randn(2, 4, 4, 4)
    found = decoder.sample_latents(features, noise, steps=5, guidance=3.0, empty_PV=empty)
    with torch.no_grad():
        truth = plain_loop(decoder, features, empty, noise, steps=5, guidance=3.0)
    torch.testing.assert_close(found, truth, atol=1e-4, rtol=1e-4)


def test_a_picture_does_not_depend_on_who_is_drawn_beside_it(make_sdxl, features, empty):
    decoder = make_sdxl()
    options = {"steps": 3, "guidance": 2.0, "empty_PV": empty}
    seeds = [Generator().manual_seed(seed) for seed in (5, 6)]
    together = decoder.decode(features, generator=seeds, **options)
    alone = decoder.decode(features[1:], generator=Generator().manual_seed(6), **options)
    assert together.shape == (2, 3, 8, 8)
    assert together.dtype == torch.uint8
    assert (together[1:].int() - alone.int()).abs().max() <= 1


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "DDPMScheduler"])
def test_noise_of_the_steps_comes_from_the_generators_too(make_sdxl, features, empty, name):
    decoder = make_sdxl(scheduler={"name": name})
    options = {"steps": 3, "guidance": 2.0, "empty_PV": empty}
    drawn = [
        decoder.decode(features, generator=[Generator().manual_seed(s) for s in seeds], **options)
        for seeds in ((5, 6), (5, 6), (5, 7))
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0][1], drawn[2][1])
    alone = decoder.decode(features[1:], generator=Generator().manual_seed(6), **options)
    assert (drawn[0][1:].int() - alone.int()).abs().max() <= 1


def test_twenty_steps_of_dpm_draw(make_sdxl, features, empty):
    decoder = make_sdxl(scheduler=DPM)
    drawn = decoder.decode(features, steps=20, guidance=7.5, empty_PV=empty)
    assert drawn.float().std() > 1


def test_without_guidance_the_empty_tile_is_not_needed(make_sdxl, features):
    decoder = make_sdxl()
    assert decoder.decode(features, steps=1, guidance=1.0).shape == (2, 3, 8, 8)
    with pytest.raises(RequestError, match=r"guidance=2\.0 was asked for without"):
        decoder.decode(features, steps=1, guidance=2.0)
    with pytest.raises(RequestError, match="0 steps"):
        decoder.decode(features, steps=0, guidance=1.0)
    with pytest.raises(RequestError, match="width 6"):
        decoder.decode(features[..., :5], steps=1, guidance=1.0)
    picky = make_sdxl(scheduler={"name": "LCMScheduler"})
    with pytest.raises(RequestError, match="60 steps, which LCMScheduler does not take"):
        picky.decode(features, steps=60, guidance=1.0)


def test_the_empty_tile_is_said_once(make_sdxl, empty, monkeypatch):
    decoder, calls = make_sdxl(), []
    forward = decoder.resampler.forward

    def count(features):
        calls.append(len(features))
        return forward(features)

    monkeypatch.setattr(decoder.resampler, "forward", count)
    first = decoder.say_nothing(empty)
    assert decoder.say_nothing(empty) is first
    assert calls == [1]
    with torch.no_grad():
        decoder.resampler.latents.add_(1)
    assert decoder.say_nothing(empty) is not first
    decoder.train()
    decoder.say_nothing(empty.clone())
    assert len(calls) == 3


def test_what_the_empty_tile_says_follows_weights_and_type(make_sdxl, empty):
    decoder = make_sdxl()
    first = decoder.say_nothing(empty)
    with torch.no_grad():
        decoder.resampler.unet_proj_1.bias.add_(1)
    torch.testing.assert_close(decoder.say_nothing(empty)[0][..., :5], first[0][..., :5] + 1)
    assert decoder.double().say_nothing(empty)[0].dtype == torch.float64


CROSS_ATTENTION = ["resampler.*", "unet.*.attn2.to_k.*", "unet.*.attn2.to_v.*"]


def test_cross_attention_alone_is_trained_where_that_is_asked(make_sdxl, pictures, features):
    """The original lists these for its optimizer and forgets to let gradients reach them."""
    decoder = make_sdxl()
    set_trainable(decoder, CROSS_ATTENTION)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    trained = [p for p in decoder.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    encoded = decoder.encode_pictures(pictures)
    for _ in range(2):
        decoder.loss(encoded, features).sum().backward()
        optimizer.step()
    changed = {n for n, v in decoder.state_dict().items() if not torch.equal(v, before[n])}
    # The bias of a key shifts all scores of a query alike: it has no gradient but rounding.
    free = {name for name, p in decoder.named_parameters() if p.requires_grad}
    assert free - {"resampler.unet_attnpool.k_proj.bias"} <= changed <= free
    assert any("attn2.to_k" in name for name in changed)
    assert not any("attn1" in name or name.startswith("vae") for name in changed)


@pytest.mark.parametrize("size", [32, 36])
def test_tiles_are_decoded_one_by_one_into_a_whole_picture(make_sdxl, pictures, monkeypatch, size):
    decoder = make_sdxl(vae_tiling=True, picture_size=size)
    decode, tiles = decoder.vae.decoder.forward, []

    def watch(latents):
        tiles.append(tuple(latents.shape[2:]))
        return decode(latents)

    latents = torch.randn(1, 4, size // 2, size // 2)
    monkeypatch.setattr(decoder.vae.decoder, "forward", watch)
    drawn = decoder.decode_latents(latents)
    assert drawn.shape == (1, 3, size, size)
    assert len(tiles) > 1
    assert max(max(tile) for tile in tiles) == 8
    whole = make_sdxl(picture_size=size).decode_latents(latents)
    # Beyond a seam's reach a tile is what the whole is, but for the norms over fewer pixels.
    assert (drawn.float() - whole.float()).abs().mean() < whole.float().std()
    picture = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    encoded = make_sdxl(picture_size=size).encode_pictures(picture)
    assert torch.equal(decoder.encode_pictures(picture), encoded)


def test_half_precision(make_sdxl, features, empty, capfd):
    decoder = make_sdxl(dtype="bfloat16")
    assert "float32" not in capfd.readouterr().err
    kinds = {name.partition(".")[0]: p.dtype for name, p in decoder.named_parameters()}
    assert kinds == {
        "vae": torch.float32,
        "unet": torch.bfloat16,
        "resampler": torch.bfloat16,
    }
    drawn = decoder.decode(features, steps=2, guidance=2.0, empty_PV=empty)
    assert drawn.shape == (2, 3, 8, 8)


def test_offloaded_parts_wait_where_they_are(make_sdxl, features, monkeypatch):
    decoder, moves = make_sdxl(offload=True), []
    for name in ("unet", "vae"):
        part = getattr(decoder, name)
        move = part.to
        monkeypatch.setattr(
            part, "to", lambda where, n=name, m=move: (moves.append((n, str(where))), m(where))[1]
        )
    truth = make_sdxl().decode(
        features, steps=2, guidance=1.0, generator=Generator().manual_seed(1)
    )
    found = decoder.decode(features, steps=2, guidance=1.0, generator=Generator().manual_seed(1))
    assert torch.equal(found, truth)
    assert moves == [("unet", "cpu"), ("unet", "cpu"), ("vae", "cpu"), ("vae", "cpu")]
    with pytest.raises(RequestError, match="offload=false"):
        decoder.loss(torch.zeros(2, 8, 4, 4, device="meta"), features)
    kept = []
    decoder._apply(lambda value: kept.append(value) or value)
    assert all(not value.is_meta for value in kept)


def test_nothing_is_registered_twice_and_nothing_computed_is_saved(make_sdxl, features):
    decoder = make_sdxl()
    names = set(decoder.state_dict())
    decoder.decode(features, steps=1, guidance=1.0)
    assert set(decoder.state_dict()) == names
    assert {name.partition(".")[0] for name in names} == {"unet", "vae", "resampler"}
    assert len(decoder.sharding_units()) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"picture_size": 10}, "picture_size=10 .*multiple of 4"),
        ({"width": 7}, "resampler.embedding_dim=6 does not fit width=7"),
        ({"null_share": 1.5}, "null_share=1.5"),
        ({"min_snr_gamma": -1.0}, "min_snr_gamma=-1"),
        ({"dtype": "int8"}, "dtype='int8'"),
    ],
)
def test_what_does_not_fit_is_refused(make_sdxl, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_sdxl(**changes)


def test_the_autoencoder_keeps_its_dtype_when_the_rest_is_sharded(make_sdxl):
    decoder = make_sdxl()
    assert list(decoder.whole_parts()) == [decoder.vae]
    assert not any(parameter.requires_grad for parameter in decoder.vae.parameters())
