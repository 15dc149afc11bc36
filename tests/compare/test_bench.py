"""A side is built as a run builds it: same weights from the same seed, ready to run packs."""

import copy
from dataclasses import replace

import pytest
import torch

from mllm_npu.compare.bench import build_bench, read_packs
from mllm_npu.compare.side import read_side
from mllm_npu.compare.side_config import SideConfigs
from mllm_npu.errors import ConfigError
from mllm_npu.ops import ways


@pytest.fixture
def build(overrides, tmp_path):
    def make(word="cpu", *more):
        side = read_side(word)
        configs = SideConfigs([side], [*overrides, *more], scratch=tmp_path)
        return build_bench(side, configs.of(side))

    return make


@pytest.fixture(scope="module")
def bench(overrides, tmp_path_factory):
    """One that the tests share."""
    side = read_side("cpu")
    scratch = tmp_path_factory.mktemp("scratch")
    return build_bench(side, SideConfigs([side], overrides, scratch=scratch).of(side))


def test_the_same_seed_gives_the_same_weights(bench, build):
    a, b, c = bench, build("reference"), build("cpu", "seed=1")
    assert a.checksums() == b.checksums()
    assert a.shapes() == b.shapes() == c.shapes()
    assert a.checksums() != c.checksums()
    assert "language_model.causal_lm.model.norm.weight" in a.checksums()
    assert not a.objective.training


def test_a_pack_runs_in_the_way_of_its_side(bench):
    for word, only in (("fused", False), ("reference", True)):
        with replace(bench, side=read_side(word)).running(0):
            assert ways._setting.only_reference is only
        assert ways._setting.only_reference is False


def test_what_is_drawn_depends_on_the_pack_alone(bench):
    drawn = []
    for pack in (0, 1, 0):
        with bench.running(pack):
            drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[2] != drawn[1]


def test_what_is_prepared_can_be_handed_on(bench, build):
    a, b = bench, build()
    (pack,) = read_packs(a, 1)
    changed = a.prepare(pack)
    assert set(changed) == {
        f"model.drawn_features.{name}" for name in ("mean", "std", "calibrated")
    }
    b.take_buffers(changed)
    assert torch.equal(b.objective.model.drawn_features.std, a.objective.model.drawn_features.std)
    assert a.prepare(pack) == {}


def test_packs_are_the_first_of_the_run(bench):
    one, two = read_packs(bench, 2)
    assert one.keys != two.keys
    assert read_packs(bench, 1)[0].keys == one.keys


def test_data_that_are_not_there_are_refused(bench, tmp_path):
    config = copy.deepcopy(bench.config)
    config.world_dir = str(tmp_path / "digits")
    with pytest.raises(ConfigError, match="Make it: mllm-npu data digits"):
        read_packs(replace(bench, config=config), 1)


def test_low_rank_updates_are_built_too(build):
    bench = build("cpu", "+lora@lora=language_model", "objective.trainable=[projector.*]")
    assert any("lora_A" in name for name in bench.checksums())
