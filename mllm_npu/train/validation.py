"""Validation loss of the live model, per data set and task, on packs that are always the same."""

from __future__ import annotations

from itertools import islice

from mllm_npu.distributed.placed import Placed
from mllm_npu.errors import ConfigError
from mllm_npu.probe import Measured, Probe
from mllm_npu.train.loss_meter import LossMeter
from mllm_npu.train.objectives.objective import Objective
from mllm_npu.train.random_state import seed_pack
from mllm_npu.train.run_state import Batches


class ValidationLoss(Probe):
    """The losses the objective has on data it is not trained on.

    Args:
        every: see Probe.
        batches: of held-out data; begun anew each time.
        num_packs: how many packs of all ranks together are looked at.

    Raises:
        ConfigError: no packs.
    """

    def __init__(self, *, every: int, batches: Batches, num_packs: int) -> None:
        super().__init__(every=every)
        if num_packs < 1:
            raise ConfigError(f"num_packs={num_packs} was asked for. Give 1 or more.")
        self.batches = batches
        self.num_packs = num_packs
        self._begin = batches.state_dict()

    def measure(self, placed: Placed) -> Measured:
        """See Probe; ``loss`` is the weighted sum of the terms."""
        assert isinstance(placed.module, Objective)
        mesh, objective, meter = placed.mesh, placed.module, LossMeter()
        self.batches.load_state_dict(self._begin)
        # Every rank looks at equally many, so that none waits for another.
        per_rank = -(-self.num_packs // mesh.data_size)
        weights: dict[str, float] = {}
        with placed.watched():
            for number, batch in enumerate(islice(iter(self.batches), per_rank)):
                mesh.progress.note("validation", keys=[key for key in batch.keys if key])
                # The same noise each time, or the losses could not be compared.
                seed_pack(0, number * mesh.data_size + mesh.data_rank)
                losses = placed(batch)
                weights |= {name: term.weight for name, term in losses.terms.items()}
                meter.add(0, batch, losses, losses.total(objective.counts(batch)))
        values = meter.read(mesh)
        terms = values.get("terms", {})
        values["loss"] = sum(weights.get(name, 1.0) * mean for name, mean in terms.items())
        return Measured(values=values)
