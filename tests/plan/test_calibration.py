import json
from contextlib import nullcontext

import pytest
import torch

from mllm_npu.plan import calibration
from mllm_npu.plan.calibration import (
    Calibration,
    cache_file,
    calibrate,
    measure_cluster,
)
from mllm_npu.plan.ranks_trial import RanksTrial
from mllm_npu.plan.steady_clock import SteadyClock
from mllm_npu.plan.surplus import Sharding, Surplus
from mllm_npu.plan.trial_step import TrialStep

CPU = torch.device("cpu")
PHASES = ("forward", "backward", "optimizer")


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Measurements made up; gives how often each was asked for."""
    made = {"trial": 0, "ranks": 0, "beside": 0}

    def step():
        return TrialStep(
            operations=(), exchanges=(), seconds=dict.fromkeys(PHASES, 1.0), parameters=2
        )

    def trial(size, clock):
        made["trial"] += 1
        return {"single": step()}

    def ranks(count, *, threads):
        made["ranks"] += 1
        rows = [(1000, 0.001), (1_000_000, 0.002)]
        steps = [{"single": step(), "fsdp2": step()} for _ in range(2)]
        return RanksTrial(usual=0.5, exchanges={"all_gather": rows}, steps=steps)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "take_steps", trial)
    monkeypatch.setattr(calibration, "try_ranks", ranks)
    monkeypatch.setattr(
        calibration, "neighbours", lambda ranks: nullcontext(made.update(beside=ranks))
    )
    monkeypatch.setattr(SteadyClock, "_work", lambda self: 0.25)
    surplus = Surplus(each=dict.fromkeys(PHASES, 1e-5), byte=dict.fromkeys(PHASES, 0.0))
    monkeypatch.setattr(calibration, "find_surplus", lambda *_: surplus)
    monkeypatch.setattr(
        calibration, "find_sharding", lambda *_, **__: Sharding(each=0.5, byte=0.125, update=0.25)
    )
    return made


def test_what_was_measured_is_kept_by_machine_and_ranks(made):
    first = calibrate(CPU, ranks=2)
    assert isinstance(first, Calibration)
    assert first.bandwidth > 1e8
    assert first.gemm["float32"] > 1e9
    assert calibrate(CPU, ranks=2) == first
    assert first.usual == 0.5
    assert first.sharding.each == 0.5
    assert made == {"trial": 0, "ranks": 1, "beside": 2}
    calibrate(CPU, ranks=4)
    assert made["ranks"] == 2
    calibrate(CPU, ranks=2, fresh=True)
    assert made == {"trial": 0, "ranks": 3, "beside": 2}


def test_one_process_exchanges_nothing(made):
    found = calibrate(CPU)
    assert found.exchanges == {}
    assert found.sharding == Sharding()
    assert found.usual == 0.25
    assert made == {"trial": 2, "ranks": 0, "beside": 1}


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"surplus": 3}', "cut off {"])
def test_a_file_that_cannot_be_used_is_written_anew(made, text):
    file = cache_file(CPU, 1)
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    found = calibrate(CPU)
    assert json.loads(file.read_text(encoding="utf-8"))["device"] == found.device
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_folder_that_cannot_be_written_stops_nothing(made, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert calibrate(CPU).device


def test_progress_comes_to_its_end(made):
    seen = []
    calibrate(CPU, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 3)
    assert seen[-1] == (3, 3)


def test_this_machine_as_a_cluster(made):
    cluster = measure_cluster(name="cpu_here", node_size=2, fresh=False)
    assert cluster.is_here
    assert cluster.ranks == 2
    assert cluster.accelerator.kind == "cpu"
    assert cluster.accelerator.peak_flops("float32") > 1e9
    assert cluster.accelerator.memory_gib == pytest.approx(cluster.host_memory_gib / 2)
    assert cluster.inside.bandwidth_gb == pytest.approx(999_000 / 0.001 / 1e9)
