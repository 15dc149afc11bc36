"""Settings from the fields of the page, and as the API takes them."""

import pytest

from mllm_npu.serve.page.settings import (
    LARGEST_SEED,
    SettingsError,
    read_drawing,
    read_number,
    read_settings,
    read_whole,
)


def test_empty_fields_ask_for_nothing():
    assert read_settings("", " ", "", "", "auto").to_request() == {"images": "auto"}


def test_filled_fields_are_asked_for():
    asked = read_settings("0,5", "0.9", "64", " 7 ", "forbid").to_request()
    assert asked == {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 64,
        "seed": 7,
        "images": "forbid",
    }
    assert read_settings("", "", "", "", "something else").images == "auto"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (("warm", "", "", ""), "temperature"),
        (("-1", "", "", ""), "temperature"),
        (("nan", "", "", ""), "temperature"),
        (("inf", "", "", ""), "temperature"),
        (("", "1.1", "", ""), "top_p"),
        (("", "", "0", ""), "max_tokens"),
        (("", "", "1.5", ""), "max_tokens"),
        (("", "", "", "-3"), "seed"),
        (("", "", "", "9" * 30), "seed"),
        (("", "", "", "٣"), "seed"),
    ],
)
def test_nonsense_names_its_field(fields, name):
    with pytest.raises(SettingsError) as caught:
        read_settings(*fields, "auto")
    assert caught.value.name == name


def test_the_range_is_told():
    with pytest.raises(SettingsError) as caught:
        read_number("top_p", "2", high=1.0)
    assert (caught.value.low, caught.value.high, caught.value.whole) == (0.0, 1.0, False)
    with pytest.raises(SettingsError) as caught:
        read_whole("seed", "x")
    assert (caught.value.low, caught.value.high, caught.value.whole) == (0, LARGEST_SEED, True)


def test_drawing_asks_for_pictures_alone():
    asked = read_drawing("5", 3, "20", "7.5", "1.5").to_request()
    assert asked == {
        "image_steps": 20,
        "guidance": 7.5,
        "image_guidance": 1.5,
        "seed": 5,
        "n": 3,
        "images": "force",
        "max_tokens": 1,
    }


def test_a_seed_is_thrown_where_none_is_given():
    seeds = {read_drawing("", 1, "", "").seed for _ in range(5)}
    assert len(seeds) > 1
    assert all(0 <= seed <= LARGEST_SEED for seed in seeds)
    assert read_drawing("", 99, "", "").number == 8
    assert read_drawing("", 0, "", "").number == 1
    with pytest.raises(SettingsError):
        read_drawing("", 1, "0", "")
