"""The desk: one for all languages of a page."""

import dataclasses

import pytest


def test_a_desk_does_not_change(make_desk):
    desk = make_desk()
    with pytest.raises(dataclasses.FrozenInstanceError):
        desk.tabs = None


def test_it_has_everything_the_page_needs(make_desk):
    names = {field.name for field in dataclasses.fields(make_desk())}
    assert names == {"controller", "pictures", "tabs", "running", "models"}
