import io
from random import Random

import numpy as np
import pytest
from PIL import Image

from mllm_npu.data.worlds.scene_pictures import (
    BACKGROUND,
    COLORS,
    POSITIONS,
    SHAPES,
    Jitter,
    Thing,
    describe_scene,
    draw_jitters,
    encode_picture,
    parse_scene,
    render,
    sort_scene,
    split_of,
)
from mllm_npu.errors import SkipSample

STILL = [Jitter(0, 0, 0.17)] * 4
SCENE = (Thing("red", "circle", "top left", 0), Thing("blue", "cross", "bottom right", 1))


def quarter(picture, position):
    place, pixels = POSITIONS.index(position), np.asarray(picture)
    half = picture.width // 2
    top, left = half * (place // 2), half * (place % 2)
    return pixels[top : top + half, left : left + half]


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_thing_has_its_color_in_its_quarter_only(color, shape):
    for position in POSITIONS:
        picture = render((Thing(color, shape, position, 0),), STILL)
        assert (picture.size, picture.mode) == ((32, 32), "RGB")
        for other in POSITIONS:
            pixels = quarter(picture, other)
            if other == position:
                assert tuple(pixels[8, 8]) == COLORS[color]
            else:
                assert (pixels == BACKGROUND).all()


def test_shapes_differ():
    pictures = {
        shape: np.asarray(render((Thing("red", shape, "top left", 0),), STILL)) for shape in SHAPES
    }
    for one in SHAPES:
        for other in SHAPES:
            if one != other:
                difference = (pictures[one].astype(int) - pictures[other]) != 0
                assert difference.any(-1).sum() > 20


def test_jitter_moves_and_sizes_by_number():
    first, second = draw_jitters(Random(0)), draw_jitters(Random(1))
    assert render(SCENE, first) == render(SCENE, first)
    assert render(SCENE, first) != render(SCENE, second)
    mixed = [first[0], *second[1:]]
    assert (
        quarter(render(SCENE, mixed), "top left") == quarter(render(SCENE, first), "top left")
    ).all()
    for jitter in first:
        assert abs(jitter.right) <= 0.03
        assert abs(jitter.down) <= 0.03
        assert 0.15 <= jitter.radius <= 0.19


def test_other_sizes_are_the_same_picture():
    large = render(SCENE, STILL, size=128).resize((32, 32), Image.Resampling.BOX)
    difference = np.asarray(large).astype(int) - np.asarray(render(SCENE, STILL))
    assert np.abs(difference).mean() < 3


def test_scenes_go_through_json_and_are_sorted():
    assert parse_scene(describe_scene(SCENE)) == SCENE
    assert parse_scene(describe_scene(SCENE[::-1])) == SCENE == sort_scene(SCENE[::-1])
    picture = render(SCENE, STILL)
    assert Image.open(io.BytesIO(encode_picture(picture))).convert("RGB") == picture


@pytest.mark.parametrize(
    "value",
    [
        3,
        [["red", "circle"]],
        [["pink", "circle", "top left", 0]],
        [["red", "star", "top left", 0]],
        [["red", "circle", "middle", 0]],
        [["red", "circle", "top left", 9]],
    ],
)
def test_broken_scenes_are_skipped(value):
    with pytest.raises(SkipSample, match="scene"):
        parse_scene(value)


def test_compositions_have_one_split_each_whatever_their_numbers():
    rng = Random(0)
    scenes = {
        tuple(
            Thing(rng.choice(list(COLORS)), rng.choice(SHAPES), POSITIONS[place], number)
            for number, place in enumerate(sorted(rng.sample(range(4), 2)))
        )
        for _ in range(3000)
    }
    splits = [split_of(scene) for scene in scenes]
    assert 0.08 < splits.count("test") / len(splits) < 0.12
    assert 0.035 < splits.count("valid") / len(splits) < 0.065
    renumbered = tuple(thing._replace(number=3) for thing in SCENE)
    assert split_of(renumbered) == split_of(SCENE)
