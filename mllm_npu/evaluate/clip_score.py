"""How well pictures fit texts by a given model of both: CLIP or SigLIP, read from a folder.

Shape letters: N texts or pictures, L tokens, S pixels of an edge, E width of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mllm_npu.device.transfer import to_device
from mllm_npu.errors import ConfigError
from mllm_npu.models.huggingface_config import build_pretrained, read_config
from mllm_npu.processing.tokenizer import load_tokenizer

CITATION = (
    "CLIPScore (Hessel et al. 2021) as it is reported of drawn pictures: 100 times the cosine of "
    "the embeddings of prompt and picture, at least 0, without the paper's factor 2.5 and without "
    "its words before the text. Values compare only where the model is the same."
)

_PART = "ClipScore"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """What models of a family are given.

    Args:
        processor: name of the class of transformers that prepares pictures by Pillow.
        fills: texts are filled up to the longest a model takes, as in its training; its fillings
            are then seen.
        lowers: texts are in lower case.
    """

    processor: str
    fills: bool
    lowers: bool


_FAMILIES: Mapping[str, _Family] = {
    "clip": _Family(processor="CLIPImageProcessorPil", fills=False, lowers=False),
    "siglip": _Family(processor="SiglipImageProcessorPil", fills=True, lowers=True),
}


class ClipScore:
    """Scores pictures by texts.

    Args:
        path: local folder of a CLIP or SigLIP model with its weights, ``tokenizer.json`` and
            ``preprocessor_config.json``; nothing is downloaded.
        device: where it computes.
        batch: pairs at once.

    Raises:
        ConfigError: the folder is not there, or holds a model of another family.
        WeightsError: it lacks parameters.
    """

    def __init__(self, *, path: str, device: torch.device | str = "cpu", batch: int = 64) -> None:
        config = read_config(None, path, part=_PART)
        family = _FAMILIES.get(config.model_type)
        if family is None:
            raise ConfigError(
                f"{_PART} was given model_type={config.model_type!r} in {path!r}; it takes "
                f"{', '.join(_FAMILIES)}. Give a folder of such a model, text part included."
            )
        from transformers import AutoModel  # noqa: PLC0415 - only where a model is given

        self.device = torch.device(device)
        self.batch = batch
        self._family = family
        self._num_tokens = int(config.text_config.max_position_embeddings)
        self._tokenizer = load_tokenizer(path=path)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._processor = _load_processor(family.processor, path)
        model = build_pretrained(AutoModel, config, path, part=_PART, dtype=torch.float32)
        self._model: Any = model.to(self.device).eval()

    def score(self, texts: Sequence[str], pictures: Sequence[Image.Image]) -> list[float]:
        """100 times the cosine of each text and its picture, at least 0.

        Args:
            texts: N of them; what is longer than the model takes is cut off.
            pictures: as many.
        """
        scores: list[float] = []
        for part in _parts(len(texts), self.batch):
            texts_NE, pictures_NE = self._embed_texts(texts[part]), self._embed(pictures[part])
            cosines_N = F.cosine_similarity(texts_NE, pictures_NE, dim=1)
            scores += (100 * cosines_N).clamp(min=0).cpu().tolist()
        return scores

    @torch.inference_mode()
    def _embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts, float32 [N, E]."""
        encoded = self._tokenizer(
            [text.lower() if self._family.lowers else text for text in texts],
            padding="max_length" if self._family.fills else True,
            truncation=True,
            max_length=self._num_tokens,
            return_tensors="pt",
        )
        given = {"input_ids": to_device(encoded["input_ids"], self.device)}
        if not self._family.fills:
            given["attention_mask"] = to_device(encoded["attention_mask"], self.device)
        return self._model.get_text_features(**given).pooler_output.float()

    @torch.inference_mode()
    def _embed(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Embeddings of pictures, float32 [N, E]."""
        pixels_N3SS = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        features = self._model.get_image_features(pixel_values=to_device(pixels_N3SS, self.device))
        return features.pooler_output.float()


def _load_processor(name: str, path: str) -> Any:
    """The family's own class by Pillow, whatever else is installed: the same pixels everywhere."""
    import transformers  # noqa: PLC0415 - only where a model is given

    if not (Path(path) / "preprocessor_config.json").is_file():
        raise ConfigError(
            f"{_PART} was asked to load {path!r}, which has no preprocessor_config.json: how its "
            "pictures are prepared is not known. Copy the file of the release into it."
        )
    return getattr(transformers, name).from_pretrained(path, local_files_only=True)


def _parts(num: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, num, size))
