"""A recording keeps what it is told once, in order, and comes back from plain values."""

import json

import pytest
import torch

from mllm_npu.compare.recording import Call, Event, Facts, Recording, Step
from mllm_npu.compare.tensor_store import TensorStore


def event(kind="output", module="m", count=1, path=""):
    return Event(kind=kind, call=0, module=module, count=count, path=path)


def call(index=0, module="m", before=0, behind=1, **others):
    values = {"count": 1, "parent": -1, "kind": "Linear", "dtypes": ("float32",), **others}
    return Call(index=index, module=module, before=before, behind=behind, **values)


@pytest.fixture
def recording():
    with TensorStore(memory_gib=1) as store:
        yield Recording(store=store)


def test_keys_tell_places_apart():
    keys = {event().key, event("input").key, event(count=2).key, event(path="0").key}
    assert len(keys) == 4
    a, b = event("parameter_grad", "m", path="w"), event("parameter_grad", "n", path="w")
    assert a.key == b.key


def test_a_tensor_that_is_passed_on_is_kept_once(recording):
    tensor = torch.ones(3)
    recording.take(event("output", "m"), tensor)
    recording.take(event("input", "n"), tensor)
    recording.take(event("input", "o"), tensor.view_as(tensor))
    first, second, third = recording.entries.values()
    assert first.content == second.content == third.content
    assert len(list(recording.store)) == 1


def test_a_changed_tensor_is_kept_anew(recording):
    tensor = torch.ones(3)
    recording.take(event("output", "m"), tensor)
    tensor.add_(1)
    recording.take(event("input", "n"), tensor)
    values = [recording.tensor(entry).tolist() for entry in recording.entries.values()]
    assert values == [[1, 1, 1], [2, 2, 2]]


def test_memory_that_is_used_again_is_another_tensor(recording):
    for number in range(50):
        recording.take(event(path=str(number)), torch.full((64,), float(number)))
    for number in range(50):
        assert recording.get("output", call(), str(number))[0] == number


def test_entries_say_what_was_there(recording):
    recording.take(event(), torch.full((2, 2), 2.0, dtype=torch.bfloat16), needs_grad=True)
    (entry,) = recording.entries.values()
    assert (entry.dtype, entry.shape, entry.norm, entry.needs_grad) == ("bfloat16", (2, 2), 4, True)
    assert recording.get("output", call(), "other") is None
    recording.take(event(path="ids"), torch.tensor([3]))
    assert recording.entries[event(path="ids").key].norm == 0


def test_what_a_module_alone_gives_is_known_already(recording):
    recording.take(event("own_output"), torch.ones(1))
    recording.take(event("own_input_grad"), torch.ones(1))
    assert recording.entries == {}
    recording.take(event("own_parameter_grad", path="w"), torch.ones(1))
    assert len(recording.entries) == 1


def test_operations_are_counted_at_the_end(recording):
    assert recording.num_operations == 0
    recording.end([call(behind=7), call(1, before=2, behind=5)], Facts())
    assert recording.num_operations == 7
    assert [one.inside for one in recording.calls] == [7, 3]


def test_it_comes_back_from_json(recording):
    recording.take(event(), torch.ones(2))
    recording.take(event("input", path="0"), torch.tensor([1, 2]), needs_grad=False)
    facts = Facts(side="cpu", steps=[Step(step=1, loss=2.0, grad_norm=3.0)], weights={"w": "1f"})
    recording.end([call()], facts)
    told = json.loads(json.dumps(recording.to_json()))
    again = Recording(store=recording.store)
    again.load_json(told)
    assert again.calls == recording.calls
    assert again.entries == recording.entries
    assert again.facts == facts
    assert torch.equal(again.get("output", call(), ""), torch.ones(2))
