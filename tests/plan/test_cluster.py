import pytest

from mllm_npu.build import build_part
from mllm_npu.config import CONFIG_FOLDER, load_config
from mllm_npu.device.peaks import peak_named
from mllm_npu.errors import ConfigError
from mllm_npu.plan.cluster import Cluster, Efficiency

CARDS = sorted(path.stem for path in (CONFIG_FOLDER / "cluster").glob("*.yaml"))
PUBLISHED = [card for card in CARDS if card != "cpu_here"]


def load(card, *overrides):
    return build_part(load_config("planning", [f"cluster={card}", *overrides]).cluster)


def test_there_is_a_card_of_every_kind():
    assert set(CARDS) == {
        "910b1_8", "910b2_64", "910b3_64", "910b4_8", "a3",
        "h100_8", "h100_64", "h200_8", "a100_64", "cpu_here",
    }  # fmt: skip


@pytest.mark.parametrize("card", PUBLISHED)
def test_a_card_is_whole_and_says_where_its_numbers_are_from(card):
    cluster = load(card)
    assert isinstance(cluster, Cluster)
    assert cluster.name == card
    ending = card.rpartition("_")[2]
    assert not ending.isdigit() or cluster.ranks == int(ending)
    assert cluster.accelerator.peak_flops("bfloat16") > 1e14
    assert cluster.inside.bandwidth_gb >= cluster.between.bandwidth_gb
    for part in (cluster.inside, cluster.between, cluster.efficiency):
        assert part.source
    said = " ".join([*cluster.sources, *cluster.accelerator.sources])
    for number in ("memory", "host_link_gb", "host_memory_gib", "storage_gb", "failure_hours"):
        assert number in said
    first = (CONFIG_FOLDER / "cluster" / f"{card}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")


def test_peaks_are_those_of_the_table():
    device = load("910b3_64").accelerator
    import torch

    assert device.peak_flops("bfloat16") == peak_named("Ascend910B3", torch.bfloat16).flops
    assert device.peak_flops("float32") == 83e12
    assert device.peak_flops("float16") == device.peak_flops("bfloat16")


def test_a_peak_of_the_card_comes_before_the_table(make_cluster):
    device = make_cluster().accelerator
    assert device.peak_flops("bfloat16") == 100e12
    assert device.peak_flops("float16") == 100e12
    assert device.peak_flops("float32") == 50e12
    assert device.peak_flops("int8") == 50e12


def test_an_unknown_device_without_a_peak_is_refused(make_cluster):
    device = make_cluster(accelerator={"peak_tflops": {}}).accelerator
    with pytest.raises(ConfigError, match=r"'made by hand'.*peak_tflops.bfloat16"):
        device.peak_flops("bfloat16")


def test_the_number_of_nodes_can_be_set():
    cluster = load("910b3_64", "cluster.num_nodes=16")
    assert cluster.ranks == 128
    assert cluster.describes == "128 x Ascend910B3 (16 nodes of 8)"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster.num_nodes=0", "cluster.num_nodes=0 was asked for"),
        ("cluster.node_size=-1", "cluster.node_size=-1"),
        ("cluster.accelerator.memory_gib=0", "memory_gib=0"),
        ("cluster.accelerator.usable_share=1.5", "usable_share=1.5"),
        ("cluster.inside.bandwidth_gb=0", "bandwidth_gb=0"),
        ("cluster.storage_gb=0", "storage_gb=0"),
        ("cluster.restart_seconds=-1", "restart_seconds=-1"),
        ("cluster.price_per_hour=-2", "price_per_hour=-2"),
        ("cluster.efficiency.compute=1.2", "'compute': 1.2"),
        ("cluster.nodes=3", "num_nodes"),
        ("cluster.num_nodes=many", "cluster.num_nodes='many'"),
    ],
)
def test_impossible_clusters_are_refused(override, message):
    sign = "+" if override == "cluster.nodes=3" else ""
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        load("910b3_64", sign + override)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "single"}, "parallel=single was asked for"),
        ({"replicas": 3}, r"parallel.replicas=3 .* Give one of 1, 2, 4, 8\."),
        ({"sequence_size": 5}, "sequence_size=5"),
        ({"sequence_size": 0}, "sequence_size=0"),
        ({"replicas": 4, "sequence_size": 4}, "one replica of 2 ranks"),
    ],
)
def test_parallel_settings_that_do_not_fit_are_refused(make_cluster, settings, message):
    asked = {"kind": "fsdp2", "replicas": 1, "sequence_size": 1} | settings
    with pytest.raises(ConfigError, match=message):
        make_cluster().check_ranks(**asked)


def test_settings_that_fit_pass(make_cluster):
    make_cluster().check_ranks(kind="hsdp", replicas=2, sequence_size=4)
    make_cluster(node_size=1).check_ranks(kind="single", replicas=1, sequence_size=1)


def test_shares_of_a_peak_are_above_zero():
    with pytest.raises(ConfigError, match="memory=0"):
        Efficiency(compute=0.5, memory=0, exchange=0.5)


def test_usable_memory(make_cluster):
    assert make_cluster().accelerator.usable_bytes == pytest.approx(64 * 0.9 * 2**30)
