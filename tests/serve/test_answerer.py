"""The engine of this package has the face that a server needs."""

import inspect

import pytest

from mllm_npu.inference.live_engine import LiveEngine
from mllm_npu.inference.live_stats import EngineStats
from mllm_npu.inference.ticket import Ticket as EngineTicket
from mllm_npu.serve.answerer import Answerer, AnswererStats, Ticket


def members(face):
    return {name for name in vars(face) if not name.startswith("_")}


@pytest.mark.parametrize(("face", "real"), [(Answerer, LiveEngine), (Ticket, EngineTicket)])
def test_the_engine_has_every_method(face, real):
    for name in members(face):
        wanted, there = getattr(face, name), getattr(real, name)
        if inspect.isfunction(wanted):
            assert list(inspect.signature(wanted).parameters) == list(
                inspect.signature(there).parameters
            )


def test_the_engine_tells_how_busy_it_is():
    assert members(AnswererStats) <= set(EngineStats.__dataclass_fields__)
