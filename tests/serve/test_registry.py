"""Workers come, are chosen from, and are forgotten in time."""

import pytest

from mllm_npu.serve.protocol import ModelCard
from mllm_npu.serve.registry import Registry, version_order

ONE, TWO, THREE = (f"http://127.0.0.1:{port}" for port in (1, 2, 3))


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registry(clock):
    return Registry(heartbeat_seconds=5, clock=clock)


def card(name="tiny", version="1"):
    return ModelCard(id=name, version=version)


def urls(workers):
    return [worker.url for worker in workers]


def test_a_worker_is_found_by_its_models(registry):
    registry.register(ONE, [card("a"), card("b")])
    registry.register(TWO + "/", [card("b")])
    assert urls(registry.find("a")) == [ONE]
    assert urls(registry.find("b")) == [ONE, TWO]
    assert registry.find("c") == []


def test_no_name_is_the_first_model_that_is_here(registry):
    assert registry.find(None) == []
    registry.register(ONE, [card("a")])
    registry.register(TWO, [card("b")])
    assert urls(registry.find(None)) == [ONE]
    assert registry.resolve(None) == ("a", None)
    registry.dismiss(ONE)
    assert urls(registry.find(None)) == [TWO]


def test_no_name_is_the_default_model_where_one_is_named(clock):
    registry = Registry(default_model="b", clock=clock)
    registry.register(ONE, [card("a")])
    assert registry.find(None) == []
    registry.register(TWO, [card("b")])
    assert urls(registry.find(None)) == [TWO]


def test_a_worker_is_dead_after_two_silent_heartbeats_and_not_before(registry, clock):
    worker = registry.register(ONE, [card()])
    clock.now += 10
    assert registry.remove_silent() == []
    clock.now += 0.01
    assert registry.find("tiny") == []
    assert worker.lost.is_set()
    assert registry.num_removed == {"silent": 1, "farewell": 0, "unreachable": 0}
    assert registry.hear(ONE, load=0) is False


def test_heartbeats_and_bytes_are_signs_of_life(registry, clock):
    worker = registry.register(ONE, [card()])
    for _ in range(5):
        clock.now += 9
        assert registry.hear(ONE + "/", load=3)
        clock.now += 9
        registry.see(worker)
    assert registry.find("tiny") == [worker]
    assert worker.load == 3


def test_a_worker_without_heartbeats_is_never_silent(registry, clock):
    registry.register(ONE, [card()], beats=False)
    clock.now += 1000
    assert registry.remove_silent() == []


def test_a_draining_worker_gets_nothing_new_and_is_not_offered(registry):
    worker = registry.register(ONE, [card()])
    registry.hear(ONE, load=1, draining=True)
    assert registry.find("tiny") == []
    assert registry.offered() == {}
    assert not worker.lost.is_set()
    registry.hear(ONE, load=1, draining=False)
    assert registry.find("tiny") == [worker]


def test_farewell_and_silence_at_the_door_leave_what_is_under_way(registry):
    first, second = registry.register(ONE, [card()]), registry.register(TWO, [card()])
    assert registry.dismiss(ONE)
    assert not registry.dismiss(ONE)
    registry.miss(second)
    registry.miss(second)
    assert len(registry) == 0
    assert not first.lost.is_set()
    assert not second.lost.is_set()
    assert registry.num_removed == {"silent": 0, "farewell": 1, "unreachable": 1}


def test_one_that_came_back_is_not_missed_for_its_forerunner(registry):
    old = registry.register(ONE, [card()])
    registry.miss(old)
    registry.register(ONE, [card()])
    registry.miss(old)
    assert len(registry) == 1


def test_registering_again_keeps_what_is_under_way(registry):
    worker = registry.register(ONE, [card("a")])
    worker.in_flight = 2
    assert registry.register(ONE, [card("b")]) is worker
    assert worker.in_flight == 2
    assert registry.find("a") == []


def test_a_heartbeat_tells_which_models_are_left(registry):
    registry.register(ONE, [card("a"), card("b")])
    assert registry.hear(ONE, load=0, models=["b"])
    assert registry.find("a") == []
    assert registry.hear(ONE, load=0, models=["b", "c"]) is False
    assert registry.hear(ONE, load=0, models=None)


def test_the_newest_version_answers_unless_another_is_named(registry):
    registry.register(ONE, [card(version="1.9")])
    registry.register(TWO, [card(version="1.10")])
    registry.register(THREE, [card(version="1.10")])
    assert urls(registry.find("tiny")) == [TWO, THREE]
    assert urls(registry.find("tiny@1.9")) == [ONE]
    assert registry.find("tiny@2") == []
    assert registry.resolve("tiny@1.9") == ("tiny", "1.9")
    assert list(registry.offered()) == ["tiny", "tiny@1.9", "tiny@1.10"]
    assert registry.offered()["tiny"].version == "1.10"


def test_an_older_version_answers_while_the_newest_drains(registry):
    registry.register(ONE, [card(version="1")])
    registry.register(TWO, [card(version="2")])
    registry.hear(TWO, load=0, draining=True)
    assert urls(registry.find("tiny")) == [ONE]


def test_a_name_may_hold_the_mark_of_versions(registry):
    registry.register(ONE, [card("me@home")])
    assert urls(registry.find("me@home")) == [ONE]
    assert registry.find("@home") == []
    assert registry.resolve("@home") == ("@home", None)


def test_busyness_counts_what_is_known_best(registry):
    worker = registry.register(ONE, [card()], speed=2)
    assert worker.busyness == 0.5
    worker.in_flight = 3
    assert worker.busyness == 2
    registry.hear(ONE, load=7)
    assert worker.busyness == 4


@pytest.mark.parametrize(
    "versions",
    [["1.9", "1.10"], ["1", "1.1"], ["2024-01-02", "2024-11-01"], ["rc", "1"], ["", "a"]],
)
def test_versions_are_sorted_as_people_do(versions):
    first, second = versions
    assert version_order(first) < version_order(second)
