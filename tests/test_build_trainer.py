"""A trainer is put together as the configuration says: ranks, data, measurements, trials."""

import pytest
import torch.distributed as dist

from mllm_npu import build
from mllm_npu.build import build_probe, build_trainer
from mllm_npu.config import load_config
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.errors import ConfigError
from mllm_npu.evaluate.live import LiveTasks
from mllm_npu.train.memory_fit import MemoryFit
from mllm_npu.train.validation import ValidationLoss


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder, scale=0.02)
    return folder


@pytest.fixture
def trainer_of(digits, tmp_path):
    """Builds a trainer as the command line does; leaves its process group behind the test."""

    def make(*overrides):
        common = [f"world_dir={digits}", f"output_dir={tmp_path}", "initialise_from=null"]
        small = ["threads=1", "train.throughput.count_flops=false", "tracker=[jsonl]"]
        words = ["experiment=digits/mllm", *common, *small, *overrides]
        return build_trainer(load_config("training", words))

    yield make
    if dist.is_initialized():
        dist.destroy_process_group()


def test_a_plain_run_tries_its_packs_and_measures_nothing_else(trainer_of):
    trainer = trainer_of("seed=5")
    assert isinstance(trainer.memory_fit, MemoryFit)
    assert trainer.memory_fit.gauge.device.type == trainer.placed.device.type
    assert (trainer.observer.probes, trainer.profile) == ({}, None)
    assert (trainer.placed.is_sharded, trainer.placed.replicated) == (False, False)
    assert trainer.update.seed == 5
    assert trainer.observer.thread_watch is not None
    assert "seed: 5" in trainer.checkpoints.config
    assert trainer.recorder.config == trainer.checkpoints.config
    assert set(trainer.recorder.trackers) == {"jsonl"}


def test_what_is_asked_for_is_measured_with_the_processor_of_the_run(trainer_of, tmp_path):
    trainer = trainer_of("validation=digits", "profile=true", "preflight=false")
    assert trainer.memory_fit is None
    assert trainer.profile.folder == tmp_path / "digits" / "mllm" / "profile"
    assert trainer.profile.trace_path.name == "rank0.trace.json.gz"
    loss, tasks = (trainer.observer.probes[name] for name in ("loss", "tasks"))
    assert (type(loss), loss.every, loss.num_packs) == (ValidationLoss, 200, 8)
    assert (type(tasks), tasks.every, tasks.limit) == (LiveTasks, 400, 64)
    processor = trainer.batches.reader.processor
    assert tasks.processor is processor is loss.batches.reader.processor
    assert (loss.batches.rank, loss.batches.world_size) == (0, 1)
    trained = {head.path for source in trainer.batches.sources for head in source.heads}
    held_out = {head.path for source in loss.batches.sources for head in source.heads}
    assert held_out
    assert not trained & held_out


def test_a_measurement_can_be_left_out_or_set_alone(trainer_of):
    trainer = trainer_of("validation=digits", "validation.tasks=null", "validation.loss.every=7")
    ((name, probe),) = trainer.observer.probes.items()
    assert (name, probe.every) == ("loss", 7)


def test_ranks_reach_the_data_of_a_measurement_and_nothing_that_does_not_ask(monkeypatch):
    built = {}

    def note(node, **parts):
        built[node["_target_"].split(".")[-1]] = parts
        return node["_target_"]

    monkeypatch.setattr(build, "build_part", note)
    given = {"processor": "the one", "rank": 1, "world_size": 4}
    for node in load_config("training", ["validation=digits"]).validation.values():
        build_probe(node, **given)
    data = "mllm_npu.data.loader.PackedBatches"
    assert built == {
        "PackedBatches": given,
        "ValidationLoss": {"batches": data},
        "LiveTasks": {"processor": "the one"},
    }


def test_one_process_can_be_sharded_and_says_so_to_whoever_counts(trainer_of):
    trainer = trainer_of("parallel=fsdp2", "parallel.recompute=full", "dataset.tokens_per_pack=300")
    assert trainer.placed.is_sharded
    assert trainer.mesh.world_size == 1
    throughput = trainer.observer.throughput
    assert (throughput.num_ranks, throughput.copies) == (1, 1)
    assert throughput.tokens_per_pack == 300


def test_work_that_is_done_again_is_counted(trainer_of):
    trainer = trainer_of("parallel.recompute=full", "train.throughput.count_flops=true")
    flops = trainer.observer.throughput.costs.of([next(trainer.batches)])
    assert flops.hardware > flops.total > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["parallel=hsdp"], r"replicas=2 .* 1 processes"),
        (["parallel=fsdp2", "parallel.replicas=2"], "choose parallel=hsdp"),
        (["train.packs_per_step=0"], "packs_per_step=0"),
        (["validation=digits", "validation.loss.every=0"], "every=0"),
    ],
)
def test_ranks_and_measurements_that_cannot_be_are_refused(trainer_of, settings, message):
    with pytest.raises(ConfigError, match=message):
        trainer_of(*settings)
