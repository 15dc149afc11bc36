"""Distortions are small, seeded, and few where few are asked for."""

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mllm_npu.errors import ConfigError
from mllm_npu.processing.augment import AffineAugment


@pytest.fixture
def spot():
    image = Image.new("RGB", (41, 41), (10, 20, 30))
    ImageDraw.Draw(image).rectangle((18, 18, 22, 22), fill="white")
    return image


def centre_of_light(image):
    light = np.asarray(image.convert("L")).astype(float)
    light = np.where(light > 100, light, 0)
    y, x = np.indices(light.shape)
    return (x * light).sum() / light.sum(), (y * light).sum() / light.sum()


def test_the_same_seed_gives_the_same_picture(picture):
    augment = AffineAugment(rotation=20, shear=10, scale=0.2, shift=0.1)
    image = picture(16, 12)
    first, second, other = (augment(image, random.Random(seed)) for seed in (1, 1, 2))
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != other.tobytes()
    assert first.size == image.size


def test_without_strength_nothing_changes(picture):
    image = picture(16, 12)
    assert AffineAugment()(image, random.Random(0)).tobytes() == image.tobytes()


def test_a_picture_has_only_so_many_forms(picture):
    augment = AffineAugment(rotation=20, shift=0.2, num_variants=4)
    image, rng = picture(16, 16), random.Random(0)
    forms = {augment(image, rng).tobytes() for _ in range(100)}
    assert len(forms) == 4
    assert image.tobytes() in forms


def test_forms_follow_from_the_pixels_alone(picture):
    augment = AffineAugment(rotation=20, shift=0.2, num_variants=3)
    image = picture(16, 16)
    forms = [{augment(image.copy(), random.Random(s)).tobytes() for s in range(40)} for _ in "ab"]
    assert forms[0] == forms[1]
    again = AffineAugment(rotation=20, shift=0.2, num_variants=3)
    assert {again(image, random.Random(s)).tobytes() for s in range(40, 90)} == forms[0]


def test_different_pictures_are_distorted_differently(spot):
    augment = AffineAugment(shift=0.3, num_variants=2)
    moved = set()
    for red in range(4):
        image = spot.copy()
        image.putpixel((0, 40), (red, 0, 0))
        forms = [augment(image, random.Random(seed)) for seed in range(10)]
        moved |= {tuple(np.round(centre_of_light(form), 1)) for form in forms}
    assert len(moved) == 5  # unmoved, and one move for each of four pictures


def test_shifts_move_the_middle_at_most_so_far(spot):
    augment = AffineAugment(shift=0.2)
    centres = np.array([centre_of_light(augment(spot, random.Random(s))) for s in range(60)])
    distance = np.abs(centres - 20)
    assert distance.max() <= 0.2 * 41 + 0.5
    assert distance.max() > 4


def test_turning_and_slanting_keep_the_middle(spot):
    augment = AffineAugment(rotation=45, shear=20, scale=0.2)
    for seed in range(20):
        assert np.allclose(centre_of_light(augment(spot, random.Random(seed))), 20, atol=0.5)


def test_turning_and_slanting_keep_the_area():
    image = Image.new("RGB", (81, 81))
    ImageDraw.Draw(image).rectangle((30, 30, 50, 50), fill="white")
    augment = AffineAugment(rotation=45, shear=30)
    for seed in range(20):
        lit = np.asarray(augment(image, random.Random(seed)))[..., 0].sum() / 255
        assert abs(lit - 441) < 20


def test_scale_changes_the_area(spot):
    lit = [
        (np.asarray(AffineAugment(scale=0.5)(spot, random.Random(s)))[..., 0] > 128).sum()
        for s in range(40)
    ]
    assert min(lit) < 15
    assert max(lit) > 40


def test_what_was_outside_has_the_colour_of_the_corner(spot):
    moved = AffineAugment(shift=0.3, rotation=30)(spot, random.Random(3))
    corners = {moved.getpixel(place) for place in [(0, 0), (40, 0), (0, 40), (40, 40)]}
    assert corners == {(10, 20, 30)}


@pytest.mark.parametrize(
    "strength", [{"rotation": -1}, {"rotation": 200}, {"shear": 80}, {"scale": 1.0}, {"shift": 2}]
)
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ConfigError, match=next(iter(strength))):
        AffineAugment(**strength)


def test_no_form_at_all_is_refused():
    with pytest.raises(ConfigError, match="num_variants=0"):
        AffineAugment(num_variants=0)
