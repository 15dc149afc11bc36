"""Models behind the front: found, described, counted."""

import asyncio
import threading

import pytest

from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.protocol import ModelCard
from mllm_npu.serve.ray_models import Models


class Model:
    """Says what it is, once it knows."""

    def __init__(self, card=None):
        self.known = card

    async def card(self):
        return self.known


def run(work):
    return asyncio.run(asyncio.wait_for(work, 20))


@pytest.fixture
def models():
    return Models({"a": Model(), "b": Model()}, count_replicas=lambda: {"a": 2, "b": 1, "front": 1})


def test_a_model_is_found_by_its_name_and_the_first_without_one(models):
    first = models.find(None)
    assert models.find("a") is first is models.default
    assert models.find("b") is not first


@pytest.mark.parametrize("asked", ["c", "a@1", "front"])
def test_one_that_is_not_here_is_told_with_those_that_are(models, asked):
    with pytest.raises(ApiError, match=f"'{asked}' was asked for, here is a, b") as caught:
        models.find(asked)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_cards_are_what_the_replicas_said_last(models):
    assert list(run(models.cards())) == ["a", "b"]
    models.find("b").known = ModelCard(id="b", version="7", draws=True, max_tokens=64)
    assert run(models.cards())["b"].version == "7"
    models.find("b").known = None
    assert run(models.cards())["b"].version == "7"


def test_a_model_without_replicas_is_not_asked():
    sleeping = Model(ModelCard(id="b", version="7"))
    models = Models({"a": Model(), "b": sleeping}, count_replicas=lambda: {"a": 1})
    assert run(models.cards())["b"].version == "1"


def test_replicas_are_counted_once_in_a_while():
    asked = []

    def count():
        asked.append(threading.current_thread())
        return {"a": 2, "front": 1}

    async def look():
        models = Models({"a": Model(), "b": Model()}, count_replicas=count)
        return [await models.count() for _ in range(3)]

    assert run(look()) == [{"a": 2, "b": 0}] * 3
    assert len(asked) == 1
    assert asked[0] is not threading.current_thread()


def test_what_is_under_way_is_counted(models):
    models.count_open(1)
    models.count_open(1)
    models.count_open(-1)
    assert models.num_open == 1
