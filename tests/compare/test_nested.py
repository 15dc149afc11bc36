"""Tensors are found in whatever holds them, and nothing else is touched."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from mllm_npu.batch import Losses, LossTerm
from mllm_npu.compare.nested import map_tensors, tensors_of

Pair = namedtuple("Pair", ["first", "second"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    value: Tensor
    count: int = 0


def paths(value):
    return [path for path, _ in tensors_of(value)]


def test_a_tensor_itself_has_no_path():
    assert paths(torch.ones(2)) == [""]


def test_tuples_lists_and_mappings_are_looked_into():
    value = (torch.ones(1), [torch.ones(1), None], {"key": torch.ones(1)}, "text", 3)
    assert paths(value) == ["0", "1.0", "2.key"]


def test_dataclasses_and_outputs_of_transformers_are_looked_into():
    losses = Losses(terms={"language": LossTerm(total=torch.ones(()), count=2)})
    assert paths(losses) == ["terms.language.total"]
    output = BaseModelOutput(
        last_hidden_state=torch.ones(1), hidden_states=(torch.ones(1), torch.ones(1))
    )
    assert paths(output) == ["last_hidden_state", "hidden_states.0", "hidden_states.1"]


def test_what_holds_no_tensor_gives_none():
    assert paths({"a": 1, "b": None, "c": [object()]}) == []


def test_what_holds_itself_ends():
    value: dict = {}
    value["self"] = value
    value["tensor"] = torch.ones(1)
    assert "tensor" in paths(value)


def test_nothing_changed_is_the_same_object():
    value = ({"a": torch.ones(1)}, [1, 2], Held(value=torch.ones(1)))
    assert map_tensors(value, lambda _, tensor: tensor) is value


def test_only_what_changes_is_made_anew():
    kept = [torch.ones(1)]
    value = {"kept": kept, "changed": (torch.ones(1), 5)}
    new = map_tensors(value, lambda path, t: t * 2 if path == "changed.0" else t)
    assert new["kept"] is kept
    assert new["changed"][0] == 2
    assert new["changed"][1] == 5
    assert value["changed"][0] == 1


def test_kinds_are_kept():
    value = (
        Pair(torch.ones(1), 2),
        OrderedDict(a=torch.ones(1)),
        Held(value=torch.ones(1), count=7),
        BaseModelOutput(last_hidden_state=torch.ones(1), hidden_states=(torch.ones(1),)),
    )
    pair, ordered, held, output = map_tensors(value, lambda _, tensor: tensor + 1)
    assert (type(pair), pair.first, pair.second) == (Pair, 2, 2)
    assert (type(ordered), ordered["a"]) == (OrderedDict, 2)
    assert (type(held), held.value, held.count) == (Held, 2, 7)
    assert (type(output), output.last_hidden_state) == (BaseModelOutput, 2)
    assert output.hidden_states == (2,)
