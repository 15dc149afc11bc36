"""What the new rows of a grown vocabulary start as.

Shape letters: W rows there were, N rows there are to be, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

NewRows = Literal["mean_times_3", "mean_resizing"]
_NEW_OUTPUT_ROWS = 3.0
"""A new row of an untied head is this many times the mean of the old rows."""
_SPREAD = 1e-9
"""Factor on the covariance of the old rows, as transformers has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGrowth:
    """A rule for a table or a head.

    Args:
        rule: "mean_times_3", the rule of the released SEED-X weights (mean of the old rows in the
            table, three times the mean in a head of its own), or "mean_resizing", drawn around the
            mean by the covariance of the old rows (Hewitt 2021).
        is_head: a head of its own, not the table.
    """

    rule: NewRows
    is_head: bool

    def grow(self, old_WD: Tensor, num_rows: int) -> Tensor:
        """The old rows and the new ones, float [W, D] -> [N, D]."""
        added = num_rows - old_WD.shape[0]
        table_WD = old_WD.float()
        mean_D = table_WD.mean(0)
        if self.rule == "mean_times_3":
            new_D = mean_D * (_NEW_OUTPUT_ROWS if self.is_head else 1.0)
            rows = new_D.expand(added, *new_D.shape)
        else:
            # A mixture of the old rows' deviations with random weights has their covariance.
            weights = torch.randn(added, old_WD.shape[0]) * (_SPREAD / old_WD.shape[0]) ** 0.5
            # The bias of a head has rows without a width.
            deviations = (table_WD - mean_D).view(len(old_WD), -1)
            rows = mean_D + (weights @ deviations).view(added, *mean_D.shape)
        return torch.cat([old_WD, rows.to(old_WD.dtype)])
