"""Seconds a collective takes on a cluster: rings inside nodes and between them, which overlap.

Between nodes each device has a link of its own, so the ranks of a node carry the traffic of their
node together. A group whose ranks lie one per node shares no link with the groups beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mllm_npu.plan.cluster import Cluster
from mllm_npu.plan.traced_step import Axis, Exchange

_TIMES_AROUND = {
    "all_gather": 1.0,
    "reduce_scatter": 1.0,
    "all_reduce": 2.0,
    "all_to_all": 1.0,
    "broadcast": 1.0,
}
"""How often the tensor goes around the ring, less the share a rank has already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the ranks of a group lie.

    Args:
        ranks: of the group.
        per_node: of them in one node.
        nodes: that the group touches.
    """

    ranks: int
    per_node: int
    nodes: int


def place_group(axis: Axis, ranks: int, *, stride: int, node_size: int) -> Placement:
    """Where a group of ranks lies.

    Args:
        axis: among which ranks; those of a replica and of a sequence follow each other, those that
            hold the same shard lie ``stride`` apart.
        ranks: of the group.
        stride: ranks of a replica.
        node_size: devices of a node.
    """
    apart = stride if axis == "replicate" else 1
    per_node = min(ranks, max(1, node_size // apart))
    return Placement(ranks=ranks, per_node=per_node, nodes=-(-ranks // per_node))


def exchange_seconds(exchange: Exchange, cluster: Cluster, *, stride: int) -> float:
    """Time of one call.

    Args:
        exchange: what travels.
        cluster: over which links.
        stride: ranks of a replica.
    """
    if exchange.ranks < 2:
        return 0.0
    place = place_group(exchange.axis, exchange.ranks, stride=stride, node_size=cluster.node_size)
    share = cluster.efficiency.exchange
    seconds, latency = 0.0, 0.0
    if place.per_node > 1:
        travels = exchange.bytes * (place.ranks - 1) / place.ranks
        seconds = travels / (cluster.inside.bandwidth_gb * 1e9 * share)
        latency += (place.per_node - 1) * cluster.inside.latency_us
    if place.nodes > 1:
        outside = exchange.bytes * (place.nodes - 1) / place.nodes
        # Everybody has something of its own for everybody: no rank carries it for its node.
        links = 1 if exchange.kind == "all_to_all" else place.per_node
        over = outside / (links * cluster.between.bandwidth_gb * 1e9 * share)
        # Pieces travel inside a node while the next ones come in from the others.
        seconds = max(seconds, over)
        latency += (place.nodes - 1) * cluster.between.latency_us
    return _TIMES_AROUND[exchange.kind] * (seconds + latency * 1e-6)
