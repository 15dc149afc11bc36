from dataclasses import replace

from mllm_npu.config import load_config
from mllm_npu.plan.setting import Setting


def shipped(*overrides):
    return Setting.of(load_config("planning", ["experiment=digits/mllm", *overrides]))


def test_it_is_read_from_a_configuration():
    setting = shipped("parallel=hsdp", "parallel.recompute=full", "train.accumulate=2")
    assert setting == Setting(
        kind="hsdp",
        replicas=2,
        sequence_size=1,
        recompute="full",
        cpu_offload=False,
        tokens_per_pack=2560,
        accumulate=2,
    )


def test_overrides_lead_from_one_to_the_other():
    base = shipped()
    for wanted in (
        replace(base, kind="hsdp", replicas=8),
        replace(base, kind="fsdp2", cpu_offload=True, recompute="selective"),
        replace(base, tokens_per_pack=512, accumulate=4),
    ):
        assert shipped(*wanted.overrides(base)) == wanted
    assert base.overrides(base) == []


def test_micro_batches_come_before_packs_of_all_ranks():
    base = shipped("train.packs_per_step=8")
    overrides = replace(base, accumulate=4).overrides(base)
    assert overrides == ["train.accumulate=4", "train.packs_per_step=null"]


def test_distance_counts_what_differs():
    base = shipped()
    assert base.distance(base) == 0
    assert replace(base, kind="hsdp", replicas=2).distance(base) == 2


def test_words():
    base = shipped()
    assert base.words == "ddp, no recompute, 1 x 2560 tokens"
    spread = replace(
        base, kind="hsdp", replicas=8, sequence_size=2, recompute="full", cpu_offload=True,
        tokens_per_pack=None,
    )  # fmt: skip
    assert spread.words == "hsdp x8, sequences over 2 ranks, recompute full, offload"
