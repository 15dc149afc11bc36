from dataclasses import replace

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.plan import planner as module
from mllm_npu.plan.planner import Planner, fit_of, scale_micro_batches

TINY = ("experiment=digits/mllm", "dataset.tokens_per_pack=512", "parallel=fsdp2")


@pytest.fixture
def asked(monkeypatch, make_traced):
    """What dry runs were asked for, in place of making them."""
    asked = []

    def trace(config, *, ranks, device, pack):
        asked.append((config, ranks, device, pack))
        return make_traced(ranks=ranks, data_ranks=ranks)

    monkeypatch.setattr(module, "trace_step", trace)
    return asked


def test_the_dry_run_is_of_the_cluster(asked):
    outcome = Planner([*TINY, "cluster=910b3_64", "cluster.num_nodes=2"]).look()
    config, ranks, device, pack = asked[0]
    assert (ranks, device, pack) == (16, "npu", None)
    assert config.parallel.kind == "fsdp2"
    assert outcome.setting.kind == "fsdp2"
    assert outcome.fit.fits
    assert outcome.step.parts["compute"] == pytest.approx(1e12 / (294.912e12 * 0.7))
    assert outcome.slowdown == 1


def test_a_change_is_composed_anew(asked):
    planner = Planner([*TINY, "cluster=h100_8"])
    changed = replace(planner.setting, recompute="full", tokens_per_pack=256)
    outcome = planner.look(changed)
    assert asked[0][0].parallel.recompute == "full"
    assert asked[0][0].dataset.tokens_per_pack == 256
    assert asked[0][2] == "cuda"
    assert outcome.setting == changed


def test_a_pack_can_be_described(asked):
    Planner([*TINY, "plan.sequence_tokens=128", "plan.tiles_per_sequence=3"]).look()
    pack = asked[0][3]
    assert (pack.tokens, pack.sequence_tokens, pack.tiles) == (512, 128, 3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cluster=nowhere"], "nowhere"),
        (["cluster.num_nodes=0"], "cluster.num_nodes=0"),
        (["parallel=single"], "parallel=single was asked for on 64 x"),
        (["parallel=hsdp", "parallel.replicas=3"], "Give one of 1, 2, 4, 8, 16, 32, 64"),
        (["parallel.sequence_size=128"], "sequence_size=128"),
        (["cluster.accelerator.name=Unheard"], "'Unheard'"),
    ],
)
def test_what_cannot_be_is_said(asked, overrides, message):
    with pytest.raises(ConfigError, match=message):
        Planner(["experiment=digits/mllm", "parallel=fsdp2", *overrides]).look()


def test_a_change_that_does_not_fit_the_cluster_is_refused(asked):
    planner = Planner([*TINY, "cluster=h100_8"])
    with pytest.raises(ConfigError, match="replicas=5"):
        planner.look(replace(planner.setting, kind="hsdp", replicas=5))
    assert asked == []


def test_folders_that_are_not_here_are_stood_in_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = []
    planner = Planner(["experiment=seedx/pretrain"], say=told.append)
    assert planner.config.models.language_model.config.hidden_size == 5120
    assert told == [
        "llama2 is not here: planned with the sizes of models/language_model=llama2_13b"
    ]
    both = Planner(["experiment=llava/align"], say=told.append)
    assert both.config.models.vision_encoder.path is None
    assert len(told) == 3


def test_a_folder_of_ones_own_is_not(tmp_path):
    with pytest.raises(ConfigError, match=r"mine/config\.json"):
        Planner(["models/language_model=folder", f"models.language_model.path={tmp_path}/mine"])


def test_room_on_the_device_and_on_the_host(make_traced, make_memory, make_cluster):
    cluster = make_cluster()
    assert fit_of(make_traced(), cluster).fits
    large = fit_of(make_traced(memory=make_memory(peak=60 << 30, margin=1 << 30)), cluster)
    assert not large.fits
    assert large.missing == pytest.approx((61 - 57.6) * 2**30)
    kept = fit_of(make_traced(host_bytes=100 << 30), cluster)
    assert kept.host_needed == 800 << 30
    assert not kept.fits


@pytest.mark.slow
def test_micro_batches_follow_from_one_and_two():
    """Exactly: what a dry run of three does is what those of one and of two say."""
    planner = Planner([*TINY, "cluster=h100_8"])
    steps = [planner.look(replace(planner.setting, accumulate=n)).traced for n in (1, 2, 3)]
    scaled = scale_micro_batches(steps[0], steps[1], 3)

    def counted(step):
        return {replace(entry, calls=0): entry.calls for entry in (*step.operations,
                                                                    *step.exchanges)}  # fmt: skip

    assert counted(scaled) == counted(steps[2])
    assert scaled.tokens == steps[2].tokens
    assert scaled.micro_batches == steps[2].micro_batches == 3
    assert scaled.model_flops == pytest.approx(steps[2].model_flops)
    assert scaled.memory.peak == pytest.approx(steps[2].memory.peak, rel=1e-3)
    assert scale_micro_batches(steps[0], steps[1], 1) is steps[0]


def test_an_outcome_is_scaled_too(asked):
    planner = Planner([*TINY, "cluster=h100_8"])
    one, two = (planner.look(replace(planner.setting, accumulate=n)) for n in (1, 2))
    many = planner.scale(one, two, 8)
    assert many.setting.accumulate == 8
    assert many.traced.micro_batches == 8
