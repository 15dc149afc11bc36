"""Say how many FLOPs a training step is worth, part by part, from host values of its batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mllm_npu.batch import Batch
from mllm_npu.errors import ConfigError
from mllm_npu.ops.cross_entropy import MAX_LOGITS
from mllm_npu.train.feature_cache import FeatureCache
from mllm_npu.train.objective_costs import PARTS, Terms, find_costs
from mllm_npu.train.objectives.contrast import pair_texts
from mllm_npu.train.objectives.objective import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFlops:
    """What some batches are worth on one rank.

    Args:
        parts: model FLOPs by name of the part: what the mathematics of forward and backward needs.
        hardware: all of them, and what is computed a second time to save memory.
    """

    parts: Mapping[str, float]
    hardware: float

    @property
    def total(self) -> float:
        """Model FLOPs of all parts."""
        return sum(self.parts.values())


class Costs:
    """What the parts of an objective cost; from ``measure_costs``.

    Args:
        parts: by name; empty for an objective ``measure_costs`` does not know.
        recompute: share of a part's forward pass that the backward pass runs again, by name.
        caches: by unit, where a frozen encoder runs on what its cache does not know.
        logit_rows: targets whose logits are held at once; what is more is computed again.

    Attributes:
        estimated: parts whose weights were counted because they do not run without memory.
    """

    def __init__(
        self,
        *,
        parts: Mapping[str, Terms],
        recompute: Mapping[str, float],
        caches: Mapping[str, FeatureCache],
        logit_rows: int,
    ) -> None:
        self.parts = dict(parts)
        self.estimated = tuple(
            name
            for name, terms in self.parts.items()
            if any(cost.is_estimated for cost in terms.values())
        )
        self._recompute = dict(recompute)
        self._caches = dict(caches)
        self._logit_rows = logit_rows
        self._num_encoded = {unit: cache.num_encoded for unit, cache in self._caches.items()}

    def of(self, batches: Sequence[Batch]) -> StepFlops:
        """What these batches are worth; to be asked once for each step, after its forward passes.

        Blank tiles and sequences count, because they are computed. Where a cache stands before an
        encoder, it ran on what the cache has encoded since the last call, and at most on all that
        is in these batches (evaluation uses the cache too).

        Args:
            batches: micro-batches of a step, on the host.
        """
        units: dict[str, float] = {}
        again = 0.0
        head = self.parts.get("head", {}).get("targets")
        for batch in batches:
            for unit, count in count_units(batch, with_texts="text_tower" in self.parts).items():
                units[unit] = units.get(unit, 0.0) + count
            if head is not None and head.backward and batch.num_targets > self._logit_rows:
                again += head.forward * batch.num_targets
        for unit, cache in self._caches.items():
            encoded, self._num_encoded[unit] = self._num_encoded[unit], cache.num_encoded
            units[unit] = min(units[unit], float(cache.num_encoded - encoded))
        parts: dict[str, float] = {}
        for name, terms in self.parts.items():
            parts[name] = sum(cost.total * units[unit] for unit, cost in terms.items())
            again += self._recompute.get(name, 0.0) * sum(
                cost.forward * units[unit] for unit, cost in terms.items() if cost.backward
            )
        return StepFlops(parts=parts, hardware=sum(parts.values()) + again)


def count_units(batch: Batch, *, with_texts: bool = False) -> dict[str, float]:
    """How much of everything a batch has, from shapes and host values alone.

    Args:
        batch: on the host.
        with_texts: pair pictures and texts too, which takes a little longer.
    """
    num_drawn = float(batch.draw_tiles.shape[0])
    units = {
        "calls": 1.0,
        "tiles": float(batch.tiles.shape[0]),
        "read_tiles": float(batch.read_tiles.shape[0]),
        "tokens": float(batch.num_tokens),
        "attention": _count_seen(batch.sequence_ends),
        "targets": float(batch.num_targets),
        "drawn": num_drawn,
        "pictures": num_drawn * (1 if batch.conditions is None else 2),
    }
    if with_texts:
        ends = pair_texts(batch).ends
        units |= {
            "text_tokens": float(ends[-1]),
            "text_attention": _count_seen(ends),
            "pairs": float(len(ends)),
            "pair_squares": float(len(ends) ** 2),
        }
    return units


def measure_costs(objective: Objective, *, recompute: Mapping[str, float] | None = None) -> Costs:
    """Find out once what each part of an objective costs per item.

    It takes seconds for a model of any size. The objective must be as it is built: what is trained
    is chosen, and nothing is wrapped yet to recompute, compile or shard it; it may be on any device
    and on meta.

    Args:
        objective: one of this package; for another one there are no parts.
        recompute: for parts (see ``PARTS``) that are recomputed in the backward pass the share of
            the forward pass that is: 1 where all but inputs of blocks is computed again.

    Raises:
        ConfigError: an unknown part.
    """
    recompute = {} if recompute is None else recompute
    if unknown := sorted(set(recompute) - set(PARTS)):
        raise ConfigError(
            f"recompute was given for {', '.join(unknown)}. The parts are {', '.join(PARTS)}."
        )
    caches = {"tiles": "feature_cache", "pictures": "latent_cache"}
    found = {unit: getattr(objective, name, None) for unit, name in caches.items()}
    language_model = getattr(objective.model, "language_model", None)
    return Costs(
        parts=find_costs(objective),
        recompute=recompute,
        caches={unit: cache for unit, cache in found.items() if cache is not None},
        logit_rows=max(1, MAX_LOGITS // getattr(language_model, "vocab_size", 1)),
    )


def _count_seen(sequence_ends: Sequence[int]) -> float:
    """How many tokens all tokens see, each those before it in its sequence and itself."""
    lengths = (end - start for start, end in zip((0, *sequence_ends), sequence_ends, strict=False))
    return float(sum(length * (length + 1) // 2 for length in lengths))
