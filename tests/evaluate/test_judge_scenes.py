from random import Random

import pytest
from PIL import Image, ImageDraw

from mllm_npu.data.worlds.scene_pictures import (
    BACKGROUND,
    COLORS,
    POSITIONS,
    SHAPES,
    Thing,
    draw_jitters,
    render,
)
from mllm_npu.evaluate.judge_scenes import (
    UNCLEAR,
    SceneJudge,
    describe_quarters,
    quarters_of,
)


@pytest.fixture(scope="module")
def judge():
    return SceneJudge(picture_size=32)


def random_scene(rng, num):
    places = sorted(rng.sample(range(4), num))
    return tuple(
        Thing(rng.choice(list(COLORS)), rng.choice(SHAPES), POSITIONS[place], number)
        for number, place in enumerate(places)
    )


def noisy(picture, rng, strength):
    pixels = [
        tuple(max(0, min(255, round(value + rng.gauss(0, strength)))) for value in pixel)
        for pixel in picture.get_flattened_data()
    ]
    copy = Image.new("RGB", picture.size)
    copy.putdata(pixels)
    return copy


SCENE = (Thing("red", "circle", "top left", 0), Thing("blue", "cross", "bottom right", 1))


@pytest.fixture
def picture():
    return render(SCENE, draw_jitters(Random(3)))


def test_every_rendered_scene_is_right(judge):
    rng = Random(1)
    for number in range(150):
        scene = random_scene(rng, number % 3 + 1)
        assert judge.is_right(render(scene, draw_jitters(rng)), scene)


def test_a_little_noise_does_not_matter(judge):
    rng = Random(2)
    for number in range(30):
        scene = random_scene(rng, number % 3 + 1)
        assert judge.is_right(noisy(render(scene, draw_jitters(rng)), rng, 12), scene)


@pytest.mark.parametrize(
    "wrong",
    [
        (Thing("red", "circle", "top left", 0),),
        (*SCENE, Thing("red", "square", "top right", 2)),
        (Thing("green", "circle", "top left", 0), SCENE[1]),
        (Thing("red", "square", "top left", 0), SCENE[1]),
        (Thing("red", "circle", "bottom left", 0), SCENE[1]),
    ],
)
def test_a_thing_missing_added_or_changed_is_wrong(judge, picture, wrong):
    assert judge.is_right(picture, SCENE)
    assert not judge.is_right(picture, wrong)


def test_quarters_are_counted(judge, picture):
    assert judge.count_right(picture, SCENE) == 4
    assert judge.count_right(picture, (SCENE[0],)) == 3
    assert judge.count_right(picture, ()) == 2


def test_half_a_shape_is_not_taken_for_a_whole_one(judge, picture):
    ImageDraw.Draw(picture).rectangle((0, 0, 7, 15), fill=BACKGROUND)
    assert judge.look(picture)["top left"] == UNCLEAR
    assert not judge.is_right(picture, SCENE)


def test_a_smudge_makes_an_empty_quarter_wrong(judge, picture):
    ImageDraw.Draw(picture).rectangle((20, 4, 28, 10), fill=(120, 120, 120))
    assert not judge.is_right(picture, SCENE)


def test_a_blur_of_two_colours_is_not_right(judge):
    red = render((Thing("red", "circle", "top left", 0),), draw_jitters(Random(0)))
    blue = render((Thing("green", "circle", "top left", 0),), draw_jitters(Random(0)))
    mixed = Image.blend(red, blue, 0.5)
    assert judge.look(mixed)["top left"] not in (("red", "circle"), ("green", "circle"))


def test_pictures_of_another_size_are_compared_at_the_judges(judge):
    large = render(SCENE, draw_jitters(Random(3)), size=64)
    assert judge.is_right(large, SCENE)


def test_quarters_in_words():
    assert (
        describe_quarters(quarters_of(SCENE))
        == "red circle at the top left, blue cross at the bottom right"
    )
    assert describe_quarters(quarters_of(())) == "nothing"
