"""A way to spread a run over ranks, as overrides of its configuration."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from mllm_npu.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a plan may change.

    Args:
        kind: of parallel.
        replicas: groups of ranks that hold the whole model between them.
        sequence_size: ranks that share a sequence.
        recompute: what blocks do in the backward pass.
        cpu_offload: whether parameters, gradients and optimizer stay on the host.
        tokens_per_pack: of a micro-batch; None where the data say it otherwise.
        accumulate: micro-batches of a step.
    """

    kind: str
    replicas: int
    sequence_size: int
    recompute: str
    cpu_offload: bool
    tokens_per_pack: int | None
    accumulate: int

    @classmethod
    def of(cls, config: Config) -> Setting:
        """The one a configuration has."""
        parallel: Any = config.parallel
        return cls(
            kind=parallel.kind,
            replicas=parallel.replicas,
            sequence_size=parallel.sequence_size,
            recompute=parallel.recompute,
            cpu_offload=parallel.cpu_offload,
            tokens_per_pack=config.dataset.get("tokens_per_pack"),
            accumulate=config.train.get("accumulate", 1),
        )

    def overrides(self, instead_of: Setting) -> list[str]:
        """What turns another setting into this one, as typed on a command line."""
        changed = [
            field.name
            for field in fields(self)
            if getattr(self, field.name) != getattr(instead_of, field.name)
        ]
        typed = [f"{_PLACES.get(name, f'parallel.{name}')}={_typed(getattr(self, name))}"
                 for name in changed]  # fmt: skip
        # It would come before the number of each rank.
        return [*typed, "train.packs_per_step=null"] if "accumulate" in changed else typed

    def distance(self, other: Setting) -> int:
        """In how many values two settings differ."""
        return sum(getattr(self, one.name) != getattr(other, one.name) for one in fields(self))

    @property
    def words(self) -> str:
        """In a few words: "hsdp x8, recompute full, 4096 tokens"."""
        said = [f"{self.kind} x{self.replicas}" if self.replicas > 1 else self.kind]
        if self.sequence_size > 1:
            said.append(f"sequences over {self.sequence_size} ranks")
        said.append("no recompute" if self.recompute == "none" else f"recompute {self.recompute}")
        if self.cpu_offload:
            said.append("offload")
        if self.tokens_per_pack is not None:
            said.append(f"{self.accumulate} x {self.tokens_per_pack} tokens")
        return ", ".join(said)


_PLACES = {"tokens_per_pack": "dataset.tokens_per_pack", "accumulate": "train.accumulate"}


def _typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
