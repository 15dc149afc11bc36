import pytest

from mllm_npu.plan.collectives import exchange_seconds, place_group


@pytest.mark.parametrize(
    ("axis", "ranks", "stride", "per_node", "nodes"),
    [
        ("shard", 8, 8, 8, 1),
        ("shard", 64, 64, 8, 8),
        ("shard", 4, 4, 4, 1),
        ("sequence", 2, 64, 2, 1),
        ("replicate", 8, 8, 1, 8),
        ("replicate", 4, 2, 4, 1),
        ("replicate", 16, 2, 4, 4),
        ("world", 64, 8, 8, 8),
    ],
)
def test_where_the_ranks_of_a_group_lie(axis, ranks, stride, per_node, nodes):
    place = place_group(axis, ranks, stride=stride, node_size=8)
    assert (place.per_node, place.nodes) == (per_node, nodes)


def test_a_ring_inside_a_node(make_cluster, make_exchange):
    """7/8 of 8 GB at half of 100 GB/s, and seven hops."""
    seconds = exchange_seconds(make_exchange(), make_cluster(), stride=8)
    assert seconds == pytest.approx(7 / 50 + 7e-6)


def test_a_sum_goes_around_twice(make_cluster, make_exchange):
    once = exchange_seconds(make_exchange(), make_cluster(), stride=8)
    both = exchange_seconds(make_exchange(kind="all_reduce"), make_cluster(), stride=8)
    assert both == pytest.approx(2 * once)


def test_between_nodes_every_device_has_a_link(make_cluster, make_exchange):
    """Half of 8 GB comes into a node over eight links of 5 GB/s; inside it is faster."""
    cluster = make_cluster(num_nodes=2)
    seconds = exchange_seconds(make_exchange(ranks=16), cluster, stride=16)
    inside = 8 * 15 / 16 / 50
    assert seconds == pytest.approx(max(inside, 4 / 40) + 7e-6 + 10e-6)
    # Over one slow link each: copies of a shard, one per node.
    apart = exchange_seconds(make_exchange(ranks=2, axis="replicate"), cluster, stride=8)
    assert apart == pytest.approx(4 / 5 + 10e-6)


def test_everybody_to_everybody_has_one_link_each(make_cluster, make_exchange):
    cluster = make_cluster(num_nodes=2)
    swap = make_exchange(kind="all_to_all", ranks=16, axis="sequence")
    assert exchange_seconds(swap, cluster, stride=16) == pytest.approx(4 / 5 + 17e-6)


def test_one_rank_exchanges_nothing(make_cluster, make_exchange):
    assert exchange_seconds(make_exchange(ranks=1), make_cluster(), stride=1) == 0


def test_more_nodes_take_longer(make_cluster, make_exchange):
    times = [
        exchange_seconds(
            make_exchange(ranks=8 * nodes), make_cluster(num_nodes=nodes), stride=8 * nodes
        )
        for nodes in (1, 2, 8, 128)
    ]
    assert times == sorted(times)
