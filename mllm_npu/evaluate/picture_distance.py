"""FID and KID of drawn pictures against a folder of real ones, as figures of a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.encoder_features import EncoderFeatures
from mllm_npu.evaluate.feature_distance import (
    NUM_SUBSETS,
    SUBSET_SIZE,
    frechet_distance,
    kernel_distance,
    num_needed,
)
from mllm_npu.evaluate.feature_statistics import (
    FeatureStatistics,
    load_statistics,
    save_statistics,
)
from mllm_npu.evaluate.figure import Figure
from mllm_npu.evaluate.picture_folder import find_pictures, read_pictures
from mllm_npu.processing.raster import Picture

Distance = Literal["fid", "kid"]

CITATION = (
    "FID: Heusel et al. 2017; KID: Bińkowski et al. 2018; both on the pooled features of the "
    "vision encoder that is given, not of Inception, so that values compare only where encoder, "
    "real pictures and the number of pictures are the same."
)


class RealPictures:
    """Statistics of real pictures, computed when they are needed, and kept where a file is named.

    Args:
        path: folder or zip of pictures.
        features: of one encoder.
        keep: safetensors file; it is read where it is there, else written.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """

    def __init__(
        self, path: str | Path, features: EncoderFeatures, *, keep: str | Path | None = None
    ) -> None:
        self.path = Path(path)
        self.features = features
        self.keep = None if keep is None else Path(keep)
        self.num = len(find_pictures(path))

    def statistics(self) -> FeatureStatistics:
        """Of all pictures of the folder.

        Raises:
            DataError: a picture or the file cannot be read, or the file is of other pictures.
        """
        probe = None if self.keep is None else self.features.probe()
        if self.keep is not None and self.keep.is_file():
            kept = load_statistics(self.keep, probe_V=probe)
            if kept.num != self.num:
                raise DataError(
                    f"The statistics in {self.keep} are of {kept.num} pictures, {self.path} holds "
                    f"{self.num}. Delete the file, or name another."
                )
            return kept
        made = self.features.describe(picture for _, picture in read_pictures(self.path))
        if self.keep is not None:
            save_statistics(made, self.keep, probe_V=probe)
        return made


def check_numbers(
    distances: Sequence[Distance], *, num_real: int, num_drawn: int, width: int
) -> None:
    """Refuse before anything is drawn what too few pictures cannot give.

    Raises:
        ConfigError: an unknown distance.
        DataError: says how many pictures are needed.
    """
    unknown = sorted(set(distances) - set(get_args(Distance)))
    if unknown:
        raise ConfigError(
            f"distances={unknown} were asked for. Give some of {list(get_args(Distance))}."
        )
    if "fid" in distances and min(num_real, num_drawn) < num_needed(width):
        raise DataError(
            f"FID was asked for between {num_real} real and {num_drawn} drawn pictures; features "
            f"of width {width} need at least {num_needed(width)} of each. Give more pictures, or "
            "distances=[kid]."
        )


def distance_figures(
    real: FeatureStatistics,
    drawn: Iterable[Picture],
    *,
    name: str,
    distances: Sequence[Distance],
    features: EncoderFeatures,
) -> list[Figure]:
    """The distances that the pictures suffice for; a short look at a task has too few for FID.

    Args:
        real: of the same encoder.
        drawn: pictures of a model.
        name: of the task; figures are ``name/fid`` and ``name/kid``.
        distances: which.
        features: of the encoder.
    """
    made = features.describe(drawn)
    figures = []
    fewest = min(real.num, made.num)
    if "fid" in distances and fewest >= num_needed(real.width):
        figures.append(
            Figure(
                name=f"{name}/fid",
                title=f"Fréchet distance to {real.num} real pictures, less is better",
                value=round(frechet_distance(real, made), 5),
                num=made.num,
                level=1,
                citation=CITATION,
            )
        )
    if "kid" in distances and fewest >= 2:
        mean, deviation = kernel_distance(real.rows(), made.rows())
        spread = f"; ± over {NUM_SUBSETS} subsets of {SUBSET_SIZE}" if deviation is not None else ""
        figures.append(
            Figure(
                name=f"{name}/kid",
                title=f"Kernel distance to {real.num} real pictures, less is better{spread}",
                value=round(mean, 7),
                num=made.num,
                standard_error=None if deviation is None else round(deviation, 7),
                level=1,
                citation=CITATION,
            )
        )
    return figures
