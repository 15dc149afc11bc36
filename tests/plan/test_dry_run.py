"""The dry run of the product's own training."""

import dataclasses

import pytest
import torch
import torch.distributed as dist
from omegaconf import open_dict
from torch import nn

from mllm_npu.config import load_config
from mllm_npu.errors import ConfigError
from mllm_npu.models.projector.attention_resampler import AttentionResampler
from mllm_npu.models.tiny import tiny_seed
from mllm_npu.ops.ways import kept_tensors, pretends
from mllm_npu.plan.dry_run import trace_step
from mllm_npu.plan.fake_pack import PackSize, PictureSize, make_pack

SMALL = PackSize(tokens=256, sequence_tokens=64, tiles=1, drawn_share=0.5)


def settings(*more, experiment="digits/mllm"):
    return load_config("training", [f"experiment={experiment}", *more])


def trace(*more, ranks=1, device="npu", pack=SMALL, experiment="digits/mllm"):
    return trace_step(settings(*more, experiment=experiment), ranks=ranks, device=device, pack=pack)


@pytest.fixture(scope="module")
def single():
    return trace("parallel=single")


@pytest.fixture(scope="module")
def sharded():
    return trace("parallel=fsdp2", ranks=4)


def bytes_of(exchanges, kind):
    return sum(exchange.bytes * exchange.calls for exchange in exchanges if exchange.kind == kind)


def test_nothing_of_it_stays_behind(single):
    assert not dist.is_initialized()
    assert not pretends("npu")
    assert kept_tensors() == []
    assert not nn.modules.module._global_forward_hooks
    assert type(torch.empty(1)) is torch.Tensor


def test_a_step_of_one_rank(single):
    assert (single.ranks, single.data_ranks, single.micro_batches) == (1, 1, 1)
    assert single.exchanges == ()
    assert single.tokens == 256
    assert 0 < single.num_trained < single.num_parameters
    memory = single.memory
    assert memory.peak == sum(memory.at_peak.values())
    assert memory.steady < memory.peak
    trained = single.num_trained * 4
    assert memory.at_peak["optimizer"] == pytest.approx(2 * trained, rel=0.05)
    assert memory.at_peak["parameters"] == pytest.approx(single.num_parameters * 4, rel=0.05)
    assert memory.at_peak["inputs"] > 0
    assert sum(memory.parameters_by_part.values()) == single.num_parameters * 4
    assert memory.margin > 0
    assert single.checkpoint_bytes == pytest.approx(
        4 * single.num_parameters + 2 * trained, rel=0.01
    )


def test_operations_have_parts_and_phases(single):
    products = [operation for operation in single.operations if operation.flops]
    assert {operation.phase for operation in products} == {"forward", "backward"}
    assert {"language_model", "vision_encoder", "projector"} <= {o.part for o in products}
    assert {o.dtype for o in products} == {"bfloat16"}
    names = {operation.name for operation in single.operations}
    assert {"mllm_npu.fused_attention", "mllm_npu.fused_swiglu", "aten._fused_adamw_"} <= names
    (update,) = [o for o in single.operations if o.name == "aten._fused_adamw_"][:1]
    assert (update.part, update.phase) == ("optimizer", "optimizer")
    total = sum(operation.flops * operation.calls for operation in single.operations)
    assert 0.9 * total < single.model_flops < total


def test_frozen_parts_have_no_backward_pass(single):
    assert not [
        operation
        for operation in single.operations
        if operation.part == "vision_encoder" and operation.phase == "backward"
    ]


def test_shards_exchange_what_the_formula_says(single, sharded):
    """Parameters are gathered, gradients of the trained ones are scattered; see scaling.py."""
    scattered = bytes_of(sharded.exchanges, "reduce_scatter")
    assert scattered == pytest.approx(4 * sharded.num_trained, rel=0.15)
    held = sum(sharded.memory.parameters_by_part.values())
    assert held == pytest.approx(sum(single.memory.parameters_by_part.values()) / 4, rel=0.02)
    assert sharded.memory.at_peak["unsharded"] > 0
    assert sharded.memory.at_peak["exchange"] > 0
    assert {exchange.axis for exchange in sharded.exchanges} == {"shard", "world"}


def test_replicas_sum_all_gradients():
    step = trace("parallel=ddp", "train.accumulate=5", ranks=2, device="cuda")
    summed = [e for e in step.exchanges if e.kind == "all_reduce" and e.phase == "backward"]
    assert sum(e.bytes * e.calls for e in summed) == 4 * step.num_trained
    assert step.micro_batches == 5


def test_two_levels_of_ranks():
    step = trace("parallel=hsdp", "train.ema_decay=0.9", ranks=8)
    assert {"shard", "replicate"} <= {exchange.axis for exchange in step.exchanges}
    assert {exchange.ranks for exchange in step.exchanges if exchange.axis == "replicate"} == {2}


def test_ranks_that_share_a_sequence():
    step = trace("parallel=fsdp2", "parallel.sequence_size=2", ranks=4)
    assert step.data_ranks == 2
    swapped = [e for e in step.exchanges if e.kind == "all_to_all"]
    assert {(e.axis, e.ranks, e.part) for e in swapped} == {("sequence", 2, "language_model")}


def test_offload_leaves_the_device_to_what_is_computed(sharded):
    step = trace("parallel=fsdp2", "parallel.cpu_offload=true", ranks=4)
    assert step.memory.at_peak["optimizer"] == 0
    assert step.host_bytes > 0
    assert step.memory.steady + step.host_bytes == pytest.approx(sharded.memory.steady, rel=0.02)


def test_recomputation_keeps_less_and_computes_more(single):
    step = trace("parallel=single", "parallel.recompute=full")
    assert step.memory.at_peak["activations"] < single.memory.at_peak["activations"]
    total = [sum(o.flops * o.calls for o in s.operations) for s in (single, step)]
    assert total[1] > 1.1 * total[0]
    assert step.model_flops == pytest.approx(single.model_flops)


def test_micro_batches_between_the_first_and_the_last_are_counted_and_not_run(single):
    step = trace("parallel=single", "train.accumulate=7")
    products = [sum(o.calls for o in s.operations if o.name == "aten.mm") for s in (single, step)]
    assert products[1] == 7 * products[0]
    assert step.tokens == 7 * single.tokens
    assert step.model_flops == pytest.approx(7 * single.model_flops, rel=1e-6)
    updates = [o.calls for o in step.operations if o.name == "aten._fused_adamw_"]
    assert sum(updates) == len([o for o in single.operations if o.name == "aten._fused_adamw_"])


def test_a_thousand_ranks_are_no_more_work():
    step = trace("parallel=fsdp2", ranks=1024)
    assert max(exchange.ranks for exchange in step.exchanges) == 1024
    assert step.memory.steady < 30 << 20


@pytest.mark.parametrize(
    "experiment", ["digits/vision", "digits/decoder", "digits/lora", "scenes/decoder"]
)
def test_every_kind_of_stage(experiment):
    step = trace("parallel=single", experiment=experiment, pack=None)
    assert step.model_flops > 0
    assert step.num_trained < step.num_parameters


def test_packs_can_be_given():
    config = settings("parallel=single")
    pictures = PictureSize.of(tiny_seed(), config)
    pictures = dataclasses.replace(pictures, tile_size=16, num_read_tokens=4, num_drawn_tokens=16)
    generator = torch.Generator().manual_seed(0)
    packs = [
        make_pack(
            PackSize(tokens=tokens, sequence_tokens=64, tiles=1),
            pictures,
            vocab_size=64,
            generator=generator,
        )
        for tokens in (64, 128, 192)
    ]
    step = trace_step(config, ranks=1, device="cpu", batches=packs)
    assert step.tokens in {packs[1].num_tokens, packs[0].num_tokens}


@pytest.mark.parametrize(
    ("more", "ranks", "said"),
    [
        (("parallel=single",), 8, "parallel=single"),
        (("parallel=hsdp", "parallel.replicas=3"), 8, "replicas=3"),
        (("parallel=fsdp2", "parallel.sequence_size=3"), 8, "sequence_size=3"),
        (("parallel=fsdp2", "train.packs_per_step=6"), 4, "packs_per_step=6"),
        (("parallel=fsdp2", "parallel.sequence_size=8"), 8, "4 heads"),
    ],
)
def test_ranks_that_do_not_fit(more, ranks, said):
    with pytest.raises(ConfigError, match=said):
        trace(*more, ranks=ranks)
    assert not dist.is_initialized()


def test_a_part_that_asks_for_values_is_named(monkeypatch):
    forward = AttentionResampler.forward

    def asking(self, features):
        assert float(features.sum()) != 1.5
        return forward(self, features)

    monkeypatch.setattr(AttentionResampler, "forward", asking)
    with pytest.raises(ConfigError, match=r"projector.* does not run in it"):
        trace("parallel=single")


def test_a_folder_of_weights_need_not_be_there():
    config = settings("parallel=single")
    with open_dict(config):
        config.models.language_model.path = "nowhere/at/all"
    assert trace_step(config, ranks=1, device="cpu", pack=SMALL).num_parameters > 0
    assert config.models.language_model.path == "nowhere/at/all"
