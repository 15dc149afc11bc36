"""The product itself on the simulated NPU: operations, stages, two ranks, what a step calls."""

import json
import subprocess
import sys

import pytest

from mllm_npu.cli import main
from mllm_npu.data.worlds.digits import make_digits

pytestmark = pytest.mark.slow
STEPS = 6


def test_every_way_of_every_operation_equals_its_reference(simulated):
    tests = simulated.PROJECT / "tests" / "ops" / "test_every_way.py"
    result = simulated.run_tests(tests)
    assert result.returncode == 0, result.stdout
    assert "npu" in result.stdout


@pytest.mark.parametrize("name", ["sim_digits", "sim_seedx"])
def test_group(simulated, name):
    result = simulated.run_group(name)
    assert result.returncode == 0, result.stdout


def losses(folder) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    make_digits(folder / "data", scale=0.05)
    return folder


def settings(place, run: str, *more: str) -> list[str]:
    return [
        *("experiment=digits/mllm", f"world_dir={place / 'data'}", f"run_dir={place / run}"),
        *("initialise_from=null", f"train.max_steps={STEPS}", "train.schedule.warmup_steps=2"),
        *("train.packs_per_step=2", "dataset.tokens_per_pack=256", "train.log_every=1"),
        *("tracker=[jsonl]", "threads=1", "preflight=false", "train.recorder.progress=false"),
        *("train.throughput.count_flops=false", "parallel.compute_dtype=float32", *more),
    ]


@pytest.mark.parametrize("parallel", ["fsdp2", "ddp"])
def test_two_ranks_over_hccl_give_the_losses_of_one_process_on_the_cpu(simulated, place, parallel):
    alone = place / "alone"
    if not alone.exists():
        assert main(["train", *settings(place, "alone", "device=cpu")]) == 0
    typed = settings(place, parallel, "device=npu", f"parallel={parallel}")
    result = simulated.run_simulated_ranks("-m", "mllm_npu.cli", "train", *typed)
    assert result.returncode == 0, result.stdout
    assert losses(place / parallel) == pytest.approx(losses(alone), rel=1e-5)


def test_what_ranks_have_saved_goes_on_on_one_cpu(simulated, place):
    half = settings(place, "moved", "device=npu", "parallel=fsdp2", "train.checkpoint_every=3")
    whole = settings(place, "unmoved", "device=cpu", "train.checkpoint_every=3")
    stopped = [text for text in half if not text.startswith("train.max_steps")]
    # The schedule of the run is as long as it will be: it is stopped by a signal at step 3.
    result = simulated.run_simulated_ranks(
        simulated.GROUPS / "train_until.py", "3", *stopped, f"train.max_steps={STEPS}"
    )
    assert result.returncode == 0, result.stdout
    assert len(losses(place / "moved")) < STEPS
    moved = [text for text in half if text not in ("device=npu", "parallel=fsdp2")]
    assert main(["train", *moved, "device=cpu"]) == 0
    assert main(["train", *whole]) == 0
    assert losses(place / "moved") == pytest.approx(losses(place / "unmoved"), rel=1e-5)


def test_parity_agrees_between_cpu_and_device_and_names_what_was_changed(simulated, place):
    typed = ["experiment=digits/mllm", f"world_dir={place / 'data'}", "initialise_from=null"]
    typed += ["threads=1", "dataset.tokens_per_pack=256", "parallel.compute_dtype=float32"]
    command = ["-m", "mllm_npu.cli", "doctor", "parity", "cpu"]
    result = simulated.run_simulated(*command, "npu", *typed)
    assert result.returncode == 0, result.stdout
    assert "agree: " in result.stdout
    changed = "npu,++models.language_model.config.rms_norm_eps=1e-4"
    result = simulated.run_simulated(*command, changed, *typed)
    assert result.returncode == 1, result.stdout
    assert "first divergence: language_model.causal_lm.model.layers.0.input_layernorm" in (
        " ".join(result.stdout.split())
    )


def test_the_doctor_knows_the_device_and_what_is_missing_around_it(simulated, tmp_path):
    result = simulated.run_simulated("-m", "mllm_npu.cli", "doctor", "--json", cwd=tmp_path)
    checks = {row["name"]: row for row in json.loads(result.stdout)["checks"]}
    assert checks["device npu"]["found"] == "8 x Ascend910B3"
    assert checks["npu peak"]["found"] == "295 TFLOP/s in bfloat16"
    assert checks["CANN"]["state"] == "bad"
    assert result.returncode == 1


def test_the_benchmark_of_waits_in_miniature(root):
    command = [sys.executable, "benchmarks/npu_sync.py", "--json", "--steps", "5", "--rounds", "1"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=root, timeout=280
    )
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["host_syncs_per_train_step"] == 0, done.stderr
    assert line["host_syncs_per_token"] <= 1
    assert line["ops_without_npu_kernel"] == []
    assert line["sim_overhead"] < 4
    for name in ("npu_fusion_attention", "npu_rms_norm", "npu_rotary_mul", "npu_swiglu"):
        assert line["fused_calls"][name] > 0
