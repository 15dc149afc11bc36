from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.inference.engine import GenerationOptions


@dataclass
class FakeReply:
    text: str = "seven"
    pictures: list = field(default_factory=lambda: [Image.new("RGB", (16, 16))])


class FakeEngine:
    def __init__(self):
        self.asked = []

    def reply_many(self, conversations, options):
        self.asked.extend(conversations)
        return [FakeReply() for _ in conversations]


@pytest.fixture
def readme_picture(load_script):
    return load_script("readme_picture")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_digits(folder, scale=0.1)
    return folder


def test_first_questions_have_no_answer_and_are_not_picked(readme_picture, world):
    questions = readme_picture.first_questions(world)
    assert len(questions) == sum(readme_picture.READ_KINDS.values())
    assert {turn.role for talk in questions for turn in talk.turns} == {"user"}
    assert questions == readme_picture.first_questions(world)


def test_pictures_stand_in_a_row(readme_picture):
    pictures = [Image.new("L", (4, 5)), Image.new("L", (6, 5))]
    assert readme_picture.side_by_side(pictures).shape == (5, 4 + 3 + 6)
    assert readme_picture.side_by_side(pictures[:1]).shape == (5, 4)


def test_a_picture_is_written(readme_picture, world, tmp_path):
    engine = FakeEngine()
    readme_picture.draw(engine, world, GenerationOptions(), tmp_path / "images" / "digits.png")
    with Image.open(tmp_path / "images" / "digits.png") as picture:
        assert picture.width > 800
    assert len(engine.asked) == 8 + 100
