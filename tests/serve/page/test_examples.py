"""Examples fit the model, and their pictures are pictures."""

import pytest

from mllm_npu.serve.page.examples import examples_for
from mllm_npu.serve.page.words import CHINESE, ENGLISH


@pytest.mark.parametrize("name", ["digits", "Digits-v2", "scenes"])
def test_demo_models_are_asked_what_they_were_trained_on(name):
    examples = examples_for(name, CHINESE)
    assert examples == examples_for(name, ENGLISH)
    assert any(example.pictures for example in examples.chat)
    assert any(example.text.startswith("Draw") for example in examples.chat)


def test_others_are_asked_in_the_persons_language():
    for name in (None, "", "llava"):
        assert examples_for(name, CHINESE).chat[0].text == CHINESE.general_examples[0]
        assert examples_for(name, ENGLISH).edits == ()


def test_pictures_can_be_taken(make_desk):
    store = make_desk().pictures
    sizes = {"digits": (16, 16), "scenes": (32, 32)}
    for name, size in sizes.items():
        examples = examples_for(name, ENGLISH)
        for example in (*examples.chat, *examples.edits):
            for data in example.pictures:
                taken = store.take_bytes(data)
                assert (taken.width, taken.height) == size


def test_every_change_has_a_picture():
    assert all(example.pictures for example in examples_for("scenes", ENGLISH).edits)
