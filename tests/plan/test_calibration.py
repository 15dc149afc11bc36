import json
from contextlib import nullcontext

import pytest
import torch

from mllm_npu.plan import calibration
from mllm_npu.plan.calibration import (
    Calibration,
    Surplus,
    cache_file,
    calibrate,
    find_surplus,
    measure_cluster,
    solve_surplus,
)
from mllm_npu.plan.exchange_trial import ExchangeTimes
from mllm_npu.plan.trial_step import TrialStep

CPU = torch.device("cpu")
PHASES = ("forward", "backward", "optimizer")


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Measurements made up; gives how often each was asked for."""
    made = {"trial": 0, "exchange": 0, "beside": 0}

    def trial(size, device):
        made["trial"] += 1
        return TrialStep(operations=(), seconds=dict.fromkeys(PHASES, 1.0))

    def exchanges(ranks):
        made["exchange"] += 1
        rows = [(1000, 0.001), (1_000_000, 0.002)]
        return ExchangeTimes(exchanges={"all_gather": rows}, sharding=0.5, update=0.25)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "take_steps", trial)
    monkeypatch.setattr(calibration, "measure_exchanges", exchanges)
    monkeypatch.setattr(
        calibration, "neighbours", lambda ranks: nullcontext(made.update(beside=ranks))
    )
    monkeypatch.setattr(
        calibration,
        "find_surplus",
        lambda *_, **__: Surplus(each=dict.fromkeys(PHASES, 1e-5), byte=dict.fromkeys(PHASES, 0.0)),
    )
    return made


def test_what_was_measured_is_kept_by_machine_and_ranks(made):
    first = calibrate(CPU, ranks=2)
    assert isinstance(first, Calibration)
    assert first.bandwidth > 1e8
    assert first.gemm["float32"] > 1e9
    assert calibrate(CPU, ranks=2) == first
    assert made == {"trial": 2, "exchange": 1, "beside": 2}
    calibrate(CPU, ranks=4)
    assert made["exchange"] == 2
    calibrate(CPU, ranks=2, fresh=True)
    assert made == {"trial": 6, "exchange": 3, "beside": 2}


def test_one_process_exchanges_nothing(made):
    assert calibrate(CPU).ranks.exchanges == {}
    assert made["exchange"] == 0


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
    assert seen[0] == (0, 4)
    assert seen[-1] == (4, 4)


def test_this_machine_as_a_cluster(made):
    cluster = measure_cluster(name="cpu_here", node_size=2, fresh=False)
    assert cluster.is_here
    assert cluster.ranks == 2
    assert cluster.accelerator.kind == "cpu"
    assert cluster.accelerator.peak_flops("float32") > 1e9
    assert cluster.accelerator.memory_gib == pytest.approx(cluster.host_memory_gib / 2)
    assert cluster.inside.bandwidth_gb == pytest.approx(999_000 / 0.001 / 1e9)


def test_two_trials_tell_operations_from_bytes():
    rows = [[100, 1e6], [300, 5e7]]
    left = [100 * 2e-5 + 1e6 * 1e-10, 300 * 2e-5 + 5e7 * 1e-10]
    assert solve_surplus(rows, left) == (pytest.approx(2e-5), pytest.approx(1e-10))


def test_neither_is_below_zero():
    each, byte = solve_surplus([[100, 1e6], [300, 5e7]], [0.002, 0.001])
    assert byte == 0
    assert each > 0
    each, byte = solve_surplus([[100, 1e6], [300, 5e7]], [0.0, 1.0])
    assert each == 0
    assert byte > 0


def test_the_surplus_is_what_operations_alone_do_not_explain(make_operation):
    shapes = ((64, 64),) * 3
    trials = []
    for calls in (10, 1000):
        one = make_operation(
            name="aten.mm", shapes=shapes, dtype="float32", bytes=3 * 64 * 64 * 4, calls=calls
        )
        trials.append(
            TrialStep(
                operations=[one],
                seconds={"forward": calls * 1e-3, "backward": 0.0, "optimizer": 0.0},
            )
        )
    found = find_surplus(trials, CPU, bandwidth=1e10)
    explained = found.each["forward"] + found.byte["forward"] * trials[0].operations[0].bytes
    assert 0.9e-3 < explained <= 1e-3
