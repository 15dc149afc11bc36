"""Number, mean and scatter of the features of a set of pictures, taken in one pass; saved to reuse.

Shape letters: N features, V their width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mllm_npu.errors import DataError

Rows = NDArray[np.float32]
Matrix = NDArray[np.float64]

_VERSION = 1
_LARGEST_CHANGE = 0.05
"""Change over norm up to which features are of one encoder: those of bfloat16 change by 0.01."""
_AGAIN = "Compute the statistics again."


class FeatureStatistics:
    """What two sets of pictures are compared by; the parts of a set can be merged.

    Everything is float64 on the host: accelerators may have no float64.

    Args:
        width: V.
        keeps_rows: keep the features themselves too, as KID needs them: 4 V bytes a picture.

    Attributes:
        num: features seen.
        mean_V: their mean.
        scatter_VV: sum of the outer products of what is left without the mean.

    Source: pairwise update of sums of squares (Chan, Golub and LeVeque 1983).
    """

    def __init__(self, *, width: int, keeps_rows: bool = True) -> None:
        self.num = 0
        self.mean_V: Matrix = np.zeros(width)
        self.scatter_VV: Matrix = np.zeros((width, width))
        self._rows: list[Rows] | None = [] if keeps_rows else None

    @property
    def width(self) -> int:
        """V."""
        return len(self.mean_V)

    def covariance(self) -> Matrix:
        """Sample covariance [V, V]; of at least two features."""
        return self.scatter_VV / (self.num - 1)

    def rows(self) -> Rows:
        """All features [N, V] in the order in which they came.

        Raises:
            DataError: they were not kept.
        """
        if self._rows is None:
            raise DataError(
                "Single features were asked for, these statistics hold their mean and scatter "
                f"only. {_AGAIN}"
            )
        return np.concatenate([np.zeros((0, self.width), np.float32), *self._rows])

    def add(self, features_NV: Rows) -> None:
        """Take further features, float32 [N, V].

        Raises:
            DataError: another width, or a value that is not finite.
        """
        if features_NV.ndim != 2 or features_NV.shape[1] != self.width:
            raise DataError(
                f"Features [N, {self.width}] were expected, got {list(features_NV.shape)}. "
                "Use one encoder for both sets."
            )
        values_NV = features_NV.astype(np.float64)
        if not np.isfinite(values_NV).all():
            raise DataError(
                "A picture has features that are not finite, which have no distance. "
                "Encode pictures in float32."
            )
        if len(values_NV) == 0:
            return
        mean_V = values_NV.mean(axis=0)
        rest_NV = values_NV - mean_V
        self._join(len(values_NV), mean_V, rest_NV.T @ rest_NV)
        if self._rows is not None:
            self._rows.append(features_NV.astype(np.float32))

    def merge(self, other: Self) -> None:
        """Take the features of another part of the set, from another rank for instance.

        Raises:
            DataError: another width, or one part keeps its features and the other does not.
        """
        if other.width != self.width or (other._rows is None) != (self._rows is None):
            raise DataError(
                f"Statistics of width {other.width}, features kept: {other._rows is not None}, "
                f"were to be merged into some of width {self.width}, features kept: "
                f"{self._rows is not None}. Make both alike."
            )
        if other.num == 0:
            return
        self._join(other.num, other.mean_V, other.scatter_VV)
        if self._rows is not None and other._rows is not None:
            self._rows += other._rows

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Plain arrays: ``version``, ``num``, ``mean``, ``scatter`` and, where kept, ``rows``."""
        state: dict[str, NDArray[Any]] = {
            "version": np.array([_VERSION]),
            "num": np.array([self.num]),
            "mean": self.mean_V,
            "scatter": self.scatter_VV,
        }
        return state if self._rows is None else state | {"rows": self.rows()}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """What ``state_dict`` gave.

        Raises:
            DataError: an array is missing or has another shape, or it is of another version.
        """
        lacking = sorted({"version", "num", "mean", "scatter"} - set(state))
        if lacking:
            raise DataError(f"Statistics of features lack {', '.join(lacking)}. {_AGAIN}")
        version = int(state["version"][0])
        if version != _VERSION:
            raise DataError(
                f"Statistics of features have version {version}, {_VERSION} is needed. {_AGAIN}"
            )
        made = cls(width=len(state["mean"]), keeps_rows="rows" in state)
        made.num = int(state["num"][0])
        made.mean_V = state["mean"].astype(np.float64)
        made.scatter_VV = state["scatter"].astype(np.float64)
        rows = state.get("rows")
        fits = made.scatter_VV.shape == (made.width, made.width) and (
            rows is None or rows.shape == (made.num, made.width)
        )
        if not fits:
            raise DataError(
                f"Statistics of {made.num} features of width {made.width} hold arrays of other "
                f"shapes. {_AGAIN}"
            )
        if rows is not None:
            made._rows = [rows.astype(np.float32)]
        return made

    def _join(self, num: int, mean_V: Matrix, scatter_VV: Matrix) -> None:
        total = self.num + num
        step_V = mean_V - self.mean_V
        between_VV = np.outer(step_V, step_V) * (self.num * num / total)
        self.scatter_VV = self.scatter_VV + scatter_VV + between_VV
        self.mean_V = self.mean_V + step_V * (num / total)
        self.num = total


def save_statistics(
    statistics: FeatureStatistics, path: Path, *, probe_V: Rows | None = None
) -> None:
    """Write statistics as safetensors, whole or not at all.

    Args:
        statistics: of a set.
        path: of the file.
        probe_V: features of a picture that every encoder can be asked for, so that statistics of
            another encoder are known when they are read.

    Raises:
        DataError: the disk refuses.
    """
    from safetensors.numpy import save  # noqa: PLC0415 - only where statistics are kept

    state = statistics.state_dict()
    if probe_V is not None:
        state["probe"] = probe_V
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(save({name: np.ascontiguousarray(a) for name, a in state.items()}))
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise DataError(
            f"Statistics of features cannot be written to {path}: {error}. Choose another file."
        ) from error


def load_statistics(path: Path, *, probe_V: Rows | None = None) -> FeatureStatistics:
    """Read what ``save_statistics`` wrote.

    Args:
        path: of the file.
        probe_V: what the encoder in use gives for that picture.

    Raises:
        DataError: it cannot be read, or was made with another encoder.
    """
    from safetensors import SafetensorError  # noqa: PLC0415 - only where statistics are kept
    from safetensors.numpy import load  # noqa: PLC0415 - only where statistics are kept

    try:
        state = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"Statistics of features cannot be read from {path}: {error}. {_AGAIN}"
        ) from error
    found_V = state.get("probe")
    if probe_V is not None and (found_V is None or not _are_alike(found_V, probe_V)):
        raise DataError(
            f"The statistics in {path} were made with another encoder than the one in use, so that "
            "nothing can be compared. Delete the file, or give the same encoder."
        )
    return FeatureStatistics.from_state(state)


def _are_alike(a_V: Rows, b_V: Rows) -> bool:
    if a_V.shape != b_V.shape:
        return False
    change = float(np.linalg.norm(a_V.astype(np.float64) - b_V))
    return change <= _LARGEST_CHANGE * float(np.linalg.norm(b_V.astype(np.float64)))
