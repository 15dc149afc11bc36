from random import Random

import pytest

from mllm_npu.data.worlds import scene_words as words
from mllm_npu.data.worlds.scene_pictures import Thing, sort_scene

RED = Thing("red", "circle", "top left", 0)
BLUE = Thing("blue", "cross", "top right", 1)
GREEN = Thing("green", "circle", "bottom left", 2)
SCENE = (RED, BLUE)


def test_the_caption_names_things_in_order():
    assert words.caption(SCENE) == "a red circle at the top left and a blue cross at the top right"
    assert words.caption((GREEN,)) == "a green circle at the bottom left"


@pytest.mark.parametrize("kind", words.QUESTION_KINDS)
def test_answers_follow_from_the_scene(kind):
    by_place = {thing.position: thing for thing in SCENE}
    answers = set()
    for seed in range(60):
        question = words.ask(SCENE, kind, Random(seed))
        assert question.kind == kind
        answers.add(question.answer)
        places = [place for place in words.POSITIONS if place in question.text]
        if kind == "color":
            assert question.answer == by_place[places[0]].color
        if kind == "shape":
            assert question.answer == by_place[places[0]].shape
        if kind == "exists":
            assert question.answer == ("yes" if places[0] in by_place else "no")
        if kind == "thing":
            there = any(f"a {t.color} {t.shape}?" in question.text for t in SCENE)
            assert question.answer == ("yes" if there else "no")
    expected = {"count": {"two"}, "describe": {words.caption(SCENE)}}
    assert answers == expected.get(kind, answers)
    assert len(answers) == (1 if kind in expected else 2)


def test_edits_change_one_thing_and_keep_numbers():
    scene = (RED, BLUE, GREEN)
    for kind in words.EDIT_KINDS[:-1]:
        for seed in range(20):
            edit = words.edit(scene, kind, Random(seed), lambda _: True)
            before, after = set(scene), set(edit.scene)
            assert len(before - after) == 1
            assert len(after - before) == (0 if kind == "remove" else 1)
            assert sort_scene(edit.scene) == edit.scene
            if kind != "remove":
                (old,), (new,) = before - after, after - before
                assert old.number == new.number
                changed = [
                    name for name in Thing._fields if getattr(old, name) != getattr(new, name)
                ]
                field = {"recolor": "color", "move": "position", "reshape": "shape"}[kind]
                assert changed == [field]
                assert getattr(new, field) in edit.text


def test_adding_takes_a_free_place_and_number():
    for seed in range(20):
        edit = words.edit(SCENE, "add", Random(seed), lambda _: True)
        (new,) = set(edit.scene) - set(SCENE)
        assert new.number == 2
        assert new.position in ("bottom left", "bottom right")
        assert f"{new.color} {new.shape} at the {new.position}" in edit.text


def test_impossible_and_unaccepted_edits_are_none():
    assert words.edit((RED,), "remove", Random(0), lambda _: True) is None
    assert words.edit((RED, BLUE, GREEN), "add", Random(0), lambda _: True) is None
    assert words.edit(SCENE, "move", Random(0), lambda _: False) is None


def test_a_thing_is_named_as_shortly_as_it_is_clear():
    twin = Thing("red", "circle", "bottom right", 3)
    assert words.refer((RED,), RED) == "it"
    assert words.refer((RED, BLUE), RED) == "the circle"
    assert words.refer((RED, GREEN), RED) == "the red circle"
    assert words.refer((RED, GREEN, twin), RED) == "the red circle at the top left"
    assert words.refer((RED, GREEN, twin), GREEN) == "the green circle"


def test_make_it_red_is_among_the_instructions():
    texts = {
        words.edit((BLUE,), "recolor", Random(seed), lambda _: True).text for seed in range(60)
    }
    assert "Make it red." in texts
