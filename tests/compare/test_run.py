"""A side is run from the first pack to the last update, and all of it is told."""

import pytest

from mllm_npu.compare.bench import build_bench, read_packs
from mllm_npu.compare.recording import Recording
from mllm_npu.compare.run import Wish, run_side
from mllm_npu.compare.side import read_side
from mllm_npu.compare.side_config import SideConfigs
from mllm_npu.compare.tensor_store import TensorStore


@pytest.fixture(scope="module")
def recording(overrides, tmp_path_factory):
    side = read_side("fused")
    words = [*overrides, "parallel.recompute=full"]
    configs = SideConfigs([side], words, scratch=tmp_path_factory.mktemp("scratch"))
    bench = build_bench(side, configs.of(side))
    packs = read_packs(bench, 2)
    bench.prepare(packs[0])
    wish = Wish(isolate=True, steps=2, memory_gib=1.0)
    recording = Recording(store=TensorStore(memory_gib=1.0))
    run_side(bench, packs, recording, wish, recording=recording, overrides=words)
    return recording


def kinds(recording):
    return [entry.event.kind for entry in recording.entries.values()]


def test_everything_is_told_in_its_order(recording):
    told = kinds(recording)
    assert set(told) == {
        *("input", "output", "loss", "output_grad", "input_grad", "parameter_grad"),
        *("own_parameter_grad", "change"),
    }
    assert told.index("loss") > told.index("output")
    assert told.index("output_grad") > told.index("loss")
    assert told.index("own_parameter_grad") > told.index("parameter_grad")
    assert told[-1] == "change"


def test_losses_have_their_names(recording):
    names = [entry.event.path for entry in recording.entries.values() if entry.event.kind == "loss"]
    assert names == ["language", "image", "total"]


def test_every_trained_parameter_has_a_gradient(recording):
    of_kind = {"parameter_grad": set(), "change": set()}
    for entry in recording.entries.values():
        if entry.event.kind in of_kind:
            of_kind[entry.event.kind].add(entry.event.path)
    assert of_kind["change"] < of_kind["parameter_grad"]
    assert not any(name.startswith("vision_encoder") for name in of_kind["change"])


def test_blocks_that_are_recomputed_are_told_once(recording):
    counts = {call.module: call.count for call in recording.calls}
    layers = [name for name in counts if name.endswith("layers.0.self_attn")]
    assert layers
    assert all(counts[name] == 1 for name in layers)


def test_facts_say_what_was_run(recording):
    facts = recording.facts
    assert (facts.side, facts.title, facts.device) == ("fused", "digits/mllm", "cpu")
    assert facts.compute_dtype == "float32"
    assert "experiment=digits/mllm" in facts.overrides
    assert set(facts.settings) == {"models", "lora", "objective", "seed"}
    assert [step.step for step in facts.steps] == [1, 2]
    assert facts.is_isolated
    assert facts.weights.keys() == facts.shapes.keys()
    assert sum(facts.ways.values()) > 0
