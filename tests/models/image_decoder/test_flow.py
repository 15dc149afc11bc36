import pytest
import torch

from mllm_npu.errors import ConfigError, RequestError
from mllm_npu.models.image_decoder.flow import FlowImageDecoder


def make(**changes):
    sizes = {"width": 16, "num_tokens": 4, "picture_size": 8, "block_channels": (8, 16)}
    return FlowImageDecoder(**(sizes | changes))


def make_pictures(count=2, size=8):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


@pytest.mark.parametrize("changes", [{}, {"channels": 1}, {"pixel_unshuffle": 2}])
def test_each_picture_has_a_loss_that_reaches_every_parameter(changes):
    decoder = make(null_share=0.5, **changes)
    losses = decoder.loss(decoder.encode_pictures(make_pictures(32)), torch.randn(32, 4, 16))
    losses.sum().backward()
    assert losses.shape == (32,)
    assert losses.dtype == torch.float32
    assert all(parameter.grad is not None for parameter in decoder.parameters())
    assert decoder.null_PV.grad.abs().sum() > 0


def test_the_null_condition_is_trained_only_where_conditions_are_dropped():
    decoder = make(null_share=0.0)
    decoder.loss(decoder.encode_pictures(make_pictures(8)), torch.randn(8, 4, 16)).sum().backward()
    assert decoder.null_PV.grad.abs().sum() == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_have_three_byte_channels_on_both_sides(channels):
    pictures = make(channels=channels).decode(torch.randn(2, 4, 16), steps=2, guidance=1.0)
    assert pictures.shape == (2, 3, 8, 8)
    assert pictures.dtype == torch.uint8
    assert torch.equal(pictures[:, 0], pictures[:, 1]) == (channels == 1)


def test_a_seed_means_one_picture_whoever_else_is_in_the_batch():
    decoder, features = make(), torch.randn(3, 4, 16)
    one = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
    together = decoder.decode(features, steps=3, guidance=2.0, generator=one)
    alone = decoder.decode(
        features[1:2], steps=3, guidance=2.0, generator=torch.Generator().manual_seed(6)
    )
    assert (together[1].int() - alone[0].int()).abs().max() <= 1


def test_guidance_leads_from_the_empty_condition_through_the_given_one():
    decoder, features = make(), torch.randn(1, 4, 16)
    noisy, time = torch.randn(1, 3, 8, 8), torch.tensor([500.0])
    with torch.no_grad():
        given = decoder._guided(noisy, time, features, 1.0)
        empty = decoder._guided(noisy, time, decoder.null_PV[None], 1.0)
        found = decoder._guided(noisy, time, features, 3.0)
    torch.testing.assert_close(found, empty + 3 * (given - empty), atol=1e-5, rtol=1e-4)


def test_one_step_from_noise_is_the_prediction_of_the_clean_picture():
    decoder, features = make(), torch.randn(1, 4, 16)
    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        clean = decoder._predict_clean(noise, torch.tensor([1000.0]), features)
    drawn = decoder.decode(
        features, steps=1, guidance=1.0, generator=torch.Generator().manual_seed(3)
    )
    expected = (clean * 127.5 + 127.5).round().clamp(0, 255)
    assert (drawn - expected).abs().max() <= 1


def test_the_grid_of_tokens_reaches_its_own_place():
    decoder = make(num_tokens=16)
    noisy, time = torch.zeros(1, 3, 8, 8), torch.tensor([100.0])
    features = torch.zeros(1, 16, 16)
    changed = features.clone()
    changed[0, 5] = 3
    seen = {}
    decoder.unet.register_forward_pre_hook(
        lambda _, args: seen.setdefault("in", []).append(args[0])
    )
    for condition in (features, changed):
        decoder._predict_clean(noisy, time, condition)
    places = (seen["in"][1] - seen["in"][0]).abs().sum((0, 1)).nonzero()
    assert places.tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_it_learns_to_draw_what_its_condition_says():
    decoder = make(channels=1, null_share=0.0)
    pictures = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    features = torch.randn(2, 4, 16)
    optimizer = torch.optim.AdamW(decoder.parameters(), 5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        decoder.loss(
            decoder.encode_pictures(pictures.repeat(8, 1, 1, 1)), features.repeat(8, 1, 1)
        ).mean().backward()
        optimizer.step()
    drawn = decoder.decode(features, steps=5, guidance=1.0).float().mean((1, 2, 3))
    assert drawn[0] < 60
    assert drawn[1] > 195


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 2}, "channels=1 or 3, got 2"),
        ({"picture_size": 9}, "picture_size=9"),
        ({"picture_size": 6, "pixel_unshuffle": 2}, "multiple of 4"),
        ({"block_channels": (12, 16)}, "num_groups=8"),
        ({"num_heads": 3}, "num_heads=3"),
        ({"num_tokens": 5}, "got 5"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_requests_that_do_not_fit_are_refused():
    decoder, features = make(), torch.randn(2, 4, 16)
    with pytest.raises(RequestError, match="0 steps"):
        decoder.decode(features, steps=0, guidance=1.0)
    with pytest.raises(RequestError, match=r"\[2, 9, 16\]"):
        decoder.decode(torch.randn(2, 9, 16), steps=1, guidance=1.0)
    with pytest.raises(RequestError, match="1 generators for 2"):
        decoder.decode(features, steps=1, guidance=1.0, generator=[torch.Generator()])
    with pytest.raises(RequestError, match="picture_size to 8"):
        decoder.loss(decoder.encode_pictures(make_pictures(size=16)), features)


def test_heads_are_heads():
    attention = make(num_heads=2).unet.down_blocks[1].attentions[0]
    assert attention.transformer_blocks[0].attn2.heads == 2


def test_it_builds_without_memory_and_offers_its_blocks():
    with torch.device("meta"):
        decoder = make()
        losses = decoder.loss(decoder.encode_pictures(make_pictures()), torch.randn(2, 4, 16))
    assert losses.is_meta
    assert len(decoder.sharding_units()) == 5


def test_an_error_weighs_as_an_error_of_the_velocity(monkeypatch):
    decoder, pictures, seen = make(), make_pictures(64), {}
    clean = pictures / 127.5 - 1

    def predict(noisy, times, condition):
        seen["times"] = times / 1000
        return clean + 0.5

    monkeypatch.setattr(decoder, "_predict_clean", predict)
    losses = decoder.loss(decoder.encode_pictures(pictures), torch.randn(64, 4, 16))
    torch.testing.assert_close(losses, (0.5 / seen["times"].clamp(min=0.1)).square())
    assert seen["times"].min() < 0.2
    assert seen["times"].max() > 0.8


def test_noise_grows_with_time(monkeypatch):
    decoder, pictures, seen = make(), make_pictures(64), {}
    clean = pictures / 127.5 - 1

    def predict(noisy, times, condition):
        seen.update(noisy=noisy, times=(times / 1000).view(-1, 1, 1, 1))
        return noisy

    monkeypatch.setattr(decoder, "_predict_clean", predict)
    decoder.loss(decoder.encode_pictures(pictures), torch.randn(64, 4, 16))
    noise = (seen["noisy"] - (1 - seen["times"]) * clean) / seen["times"]
    assert noise.mean().item() == pytest.approx(0, abs=0.05)
    assert noise.std().item() == pytest.approx(1, abs=0.05)


def test_cross_attention_sees_the_condition_with_positions():
    decoder, features, seen = make(), torch.randn(1, 4, 16), {}
    decoder.unet.register_forward_pre_hook(lambda _, args: seen.update(states=args[2]))
    decoder._predict_clean(torch.zeros(1, 3, 8, 8), torch.tensor([5.0]), features)
    assert torch.equal(seen["states"], features + decoder.positions)


@pytest.mark.parametrize(
    "change",
    [{"block_channels": []}, {"pixel_unshuffle": 0}, {"num_groups": 0}, {"num_heads": 0}],
)
def test_levels_and_numbers_from_one_on(change):
    with pytest.raises(ConfigError, match="at least one level and numbers from 1"):
        FlowImageDecoder(**{"width": 16, "num_tokens": 4, "picture_size": 8, **change})
