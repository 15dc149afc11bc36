"""Send pictures of a folder through encoder and decoder: how close is what comes back?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mllm_npu.evaluate.encoder_features import features_of
from mllm_npu.evaluate.figure import Figure, mean_figure
from mllm_npu.evaluate.picture_distance import Distance, distance_figures
from mllm_npu.evaluate.picture_folder import read_pictures
from mllm_npu.evaluate.redrawing import picture_of
from mllm_npu.evaluate.similarity import compare_pictures
from mllm_npu.evaluate.task import Example, Record, Task
from mllm_npu.inference.engine import Engine
from mllm_npu.inference.events import Reply
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.models.interfaces import VisionEncoder
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn
from mllm_npu.processing.raster import to_pillow

MOST_PSNR = 100.0
"""Stands for the infinite PSNR of equal pictures, in dB, so that it has a mean."""


class Reconstruction(Task):
    """Pictures that are encoded and drawn again, past the language model.

    Each is compared with the picture that was sent, stretched to the drawn one's size: SSIM (the
    score), PSNR, and how different the two look to a vision encoder. Beside that FID and KID of all
    drawn pictures against all sent ones, where they are enough for it.

    Args:
        data: folder or zip of pictures.
        engine: of the model that is measured.
        options: image_steps, guidance and seed; every picture starts from the same noise.
        encoder: whose features are compared; None takes the model's own, which is weak evidence:
            the decoder was trained to please it.
        layers: blocks of the encoder whose tokens are compared, -1 the last; none compares what it
            gives in the end.
        distances: between all sent and all drawn pictures, "fid" and "kid".

    Raises:
        ConfigError: a layer that is not there.
        DataError: there is no picture at ``data``.
    """

    name = "reconstruction"
    title = "Structural similarity (SSIM) of pictures sent through encoder and decoder"
    citation = "SSIM: Wang et al. 2004; pictures stretched to the size of the drawn ones."
    needs_drawing = True

    def __init__(
        self,
        *,
        data: Path,
        engine: Engine,
        options: GenerationOptions,
        encoder: VisionEncoder | None = None,
        layers: Sequence[int] = (),
        distances: Sequence[Distance] = ("fid", "kid"),
    ) -> None:
        self.data, self.options = Path(data), options
        self.features = features_of(engine, encoder, layers=layers)
        self.distances = tuple(distances)
        self._found: dict[str, dict[str, float]] = {}

    def examples(self) -> Sequence[Example]:
        """Every picture once, with its name."""
        return [
            Example(
                name=name,
                conversation=Conversation(
                    turns=(Turn(role="user", parts=(ReadImage(picture=picture), Text(text=name))),),
                    key=name,
                ),
                answer="the same picture",
                options=self.options,
                redraws=True,
            )
            for name, picture in read_pictures(self.data)
        ]

    def score(self, example: Example, reply: Reply) -> float:
        """SSIM of the drawn picture, 1 for an equal one."""
        return self._compare(example, reply)["ssim"]

    def explain(self, example: Example, reply: Reply) -> str:
        """SSIM and PSNR in words."""
        found = self._compare(example, reply)
        return f"SSIM {found['ssim']:.3f}, PSNR {found['psnr']:.1f} dB"

    def figures(self, records: Sequence[Record]) -> Sequence[Figure]:
        """SSIM, PSNR, distance of features, and distances of the two sets."""
        drawn = [record for record in records if record.reply.pictures]
        figures = list(super().figures(records))
        if not drawn:
            return figures
        truths = [picture_of(record.example) for record in drawn]
        pictures = [record.reply.pictures[0] for record in drawn]
        figures.append(
            mean_figure(
                name=f"{self.name}/psnr",
                title="Peak signal-to-noise ratio of those reconstructions, dB",
                values=[self._compare(r.example, r.reply)["psnr"] for r in drawn],
                citation=f"Equal pictures count as {MOST_PSNR:.0f} dB.",
                level=1,
            )
        )
        figures.append(
            mean_figure(
                name=f"{self.name}/features",
                title="Distance of their features, 0..4, less is better",
                values=self.features.distances(truths, pictures),
                citation=(
                    "After LPIPS (Zhang et al. 2018), with the vision encoder that is given, its "
                    "tokens and no learnt weights: not LPIPS values."
                ),
                level=1,
            )
        )
        return figures + distance_figures(
            self.features.describe(truths),
            pictures,
            name=self.name,
            distances=self.distances,
            features=self.features,
        )

    def _compare(self, example: Example, reply: Reply) -> dict[str, float]:
        if example.name not in self._found:
            found = compare_pictures(to_pillow(picture_of(example)), reply.pictures[0])
            self._found[example.name] = {**found, "psnr": min(found["psnr"], MOST_PSNR)}
        return self._found[example.name]
