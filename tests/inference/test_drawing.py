"""Pictures that are asked for alike are one batch; an edit sees what it changes."""

import torch
from PIL import Image
from torch import Generator

from mllm_npu.inference.drawing import draw_pictures, fresh_seed, redraw
from mllm_npu.inference.options import GenerationOptions

OPTIONS = GenerationOptions(guidance=1.0)


def generators(count):
    return [Generator().manual_seed(number) for number in range(count)]


def test_alike_pictures_are_one_batch_and_come_back_in_order(fakes):
    model = fakes.FakeModel({})
    wishes = [OPTIONS, GenerationOptions(guidance=3.0), OPTIONS]
    features = torch.tensor([0.01, 0.05, 0.1]).view(3, 1, 1).expand(3, 1, 2)
    drawn = draw_pictures(
        model, features, options=wishes, generators=generators(3), conditions=[None] * 3
    )
    assert model.image_decoder.batches == [(2, 10, 1.0), (1, 10, 3.0)]
    for place, wish in enumerate(wishes):
        [alone] = draw_pictures(
            model,
            features[place : place + 1],
            options=[wish],
            generators=[Generator().manual_seed(place)],
            conditions=[None],
        )
        assert alone.tobytes() == drawn[place].tobytes()


def test_only_a_decoder_that_takes_them_sees_pictures_to_change(fakes):
    grey = Image.new("RGB", (7, 5), (90, 90, 90))
    for takes in (False, True):
        model = fakes.FakeModel({}, takes_condition=takes)
        draw_pictures(
            model,
            torch.zeros(2, 1, 2),
            options=[OPTIONS] * 2,
            generators=generators(2),
            conditions=[None, grey],
        )
        seen = model.image_decoder.conditions
        if takes:
            assert seen[0] is None
            assert (seen[1] == 90).all()
            assert seen[1].shape == (1, 3, 2, 2)
        else:
            assert seen == [None]


def test_redraw_says_how_far_it_is_and_keeps_the_order(fakes):
    model, steps = fakes.FakeModel({}), []
    pictures = [Image.new("RGB", (4, 4), (shade,) * 3) for shade in (0, 60, 120)]
    redrawn = redraw(
        model,
        pictures,
        OPTIONS,
        device=torch.device("cpu"),
        max_batch=2,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(2, 3), (3, 3)]
    shades = [picture.getpixel((0, 0))[0] for picture in redrawn]
    assert shades[1] - shades[0] == 60 == shades[2] - shades[1]


def test_a_seed_is_kept_and_a_missing_one_is_fresh():
    assert fresh_seed(3) == 3
    assert fresh_seed(None) != fresh_seed(None)
