"""Real sides of the digits run are compared, through files too; mistakes are one clear line."""

import pytest
import torch

from mllm_npu.build import build_model
from mllm_npu.compare import parity
from mllm_npu.compare.parity import compare_sides
from mllm_npu.compare.run import Wish
from mllm_npu.config import load_config, write_config
from mllm_npu.errors import ConfigError
from mllm_npu.model_folder import save_model_folder

ISOLATED = Wish(isolate=True)
UP = "language_model.causal_lm.model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def recorded(overrides, tmp_path_factory):
    """Side A, run once and kept in a file."""
    path = tmp_path_factory.mktemp("record") / "a.safetensors"
    wish = Wish(isolate=True, steps=2, memory_gib=0.003)
    said = []
    assert compare_sides(["fused"], overrides, wish, record=path, say=said.append) is None
    assert said == ["A: fused on cpu", f"record: {path}"]
    return str(path)


@pytest.fixture
def compare(overrides):
    def run(*words, more=(), wish=None, **options):
        return compare_sides(words, [*overrides, *more], wish or Wish(), **options)

    return run


@pytest.fixture
def change_last(monkeypatch):
    """Makes a part of the last side wrong once it is built."""

    def plant(change, *, builds=1):
        build, count = parity.build_bench, [0]

        def build_bench(*args):
            bench = build(*args)
            count[0] += 1
            if count[0] == builds:
                change(bench.objective.model)
            return bench

        monkeypatch.setattr(parity, "build_bench", build_bench)

    return plant


def test_the_same_side_twice_is_bit_for_bit_the_same(compare):
    said = []
    found = compare("cpu", "cpu", say=said.append)
    assert found.verdict.agrees
    assert all(row.difference.relative == 0 for row in found.comparison.rows)
    assert len(found.comparison.rows) > 300
    assert said == ["A: cpu on cpu", "B: cpu on cpu"]


def test_fast_ways_and_references_agree(compare, recorded):
    said = []
    found = compare(recorded, "reference", wish=Wish(isolate=True, steps=2), say=said.append)
    assert found.verdict.agrees, found.verdict.lines()
    assert found.verdict.weights == ()
    assert max(row.difference.relative for row in found.comparison.rows) > 0
    assert [row.a.step for row in found.comparison.steps] == [1, 2]
    assert any(row.event.kind == "change" for row in found.comparison.rows)
    a, b = found.comparison.recording.facts.ways, found.comparison.facts.ways
    assert any("reference" in way for way in b)
    assert not any("reference" in way for way in a)
    assert said == [f"A: {recorded}, recorded of fused", "B: reference on cpu"]


def test_two_dtypes_are_within_their_bounds(compare, recorded):
    bf16 = "cpu,parallel.compute_dtype=bfloat16"
    found = compare(recorded, bf16, wish=Wish(isolate=True, steps=2))
    assert found.verdict.agrees, found.verdict.lines()
    shares = [row.share for row in found.comparison.rows if row.event.kind == "output"]
    assert max(shares) > 0.02


def test_a_planted_fault_is_named_in_bfloat16_too(compare, change_last, tools):
    change_last(
        lambda model: tools.change_forward(model.get_submodule(UP), lambda x: x * 1.5), builds=2
    )
    both = ["parallel.compute_dtype=bfloat16"]
    found = compare("cpu", "reference", more=both, wish=ISOLATED)
    assert (found.verdict.first.module, found.verdict.first.direction) == (UP, "forward")
    assert [finding.module for finding in found.verdict.guilty] == [UP]


def test_a_planted_fault_of_the_backward_pass_is_named(compare, recorded, change_last, tools):
    change_last(lambda model: tools.change_backward(model.get_submodule(UP)))
    found = compare(recorded, "reference", wish=ISOLATED)
    assert (found.verdict.first.module, found.verdict.first.direction) == (UP, "backward")
    assert [finding.module for finding in found.verdict.guilty] == [UP]


def test_a_planted_fault_of_a_parameter_is_named(compare, recorded, change_last, tools):
    name = "projector.attn.in_proj_weight"
    change_last(lambda model: tools.change_parameter(model.get_parameter(name)))
    found = compare(recorded, "cpu", wish=ISOLATED)
    # The projector computes with the weights of its attention itself.
    assert found.verdict.first.module == "projector"
    assert found.verdict.first.detail == f"gradient of {name}"
    assert [finding.module for finding in found.verdict.guilty] == ["projector"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["seed=1"], r"another configuration \(seed: 0, 1\)"),
        (["models/projector=mlp"], r"models\.projector\._target_"),
    ],
)
def test_a_record_of_another_configuration_is_refused(compare, recorded, more, told):
    with pytest.raises(ConfigError, match=told) as error:
        compare(recorded, "cpu", more=more)
    assert "experiment=digits/mllm" in str(error.value)


def test_what_a_record_lacks_is_refused(compare, recorded, overrides, tmp_path):
    with pytest.raises(ConfigError, match="was recorded with 2"):
        compare(recorded, "cpu", wish=Wish(steps=1))
    with pytest.raises(ConfigError, match="is a record already"):
        compare(recorded, record=tmp_path / "b.safetensors")
    with pytest.raises(ConfigError, match="Give it as side A"):
        compare("cpu", recorded)
    path = tmp_path / "c.safetensors"
    compare("cpu", record=path)
    with pytest.raises(ConfigError, match="recorded without it"):
        compare(str(path), "cpu", wish=ISOLATED)


def test_runs_with_other_weights_part_where_the_weights_do(overrides, tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    config = load_config("training", overrides)
    model = build_model(config)
    for folder in folders:
        if folder.name == "b":
            with torch.no_grad():
                model.projector.ln_kv.weight.mul_(1.1)
        write_config(config, folder / "config.yaml")
        save_model_folder(model, config, folder / "model")
    words = [str(folder) for folder in folders]
    found = compare_sides(words, ["device=cpu"], Wish())
    assert found.verdict.weights == ("projector.ln_kv.weight",)
    assert found.verdict.first.module == "projector.ln_kv"
    assert found.verdict.first.differs_in_weights
    assert compare_sides([words[0], "cpu"], [], Wish()).verdict.agrees


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("intermediate_size=128", r"is \[256, 96\] on side A and \[128, 96\] on side B"),
        ("num_hidden_layers=2", "is on side A alone"),
    ],
)
def test_other_models_are_refused(compare, recorded, setting, told):
    with pytest.raises(ConfigError, match=told) as error:
        compare(recorded, f"cpu,models.language_model.config.{setting}")
    assert str(error.value).startswith("The two sides are other models: ")
