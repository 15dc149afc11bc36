"""Interleaved format: the original's tars of pickled documents to rows of json and pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mllm_npu.data.convert.listing import Listing
from mllm_npu.data.convert.loose_row import is_pickle_file
from mllm_npu.data.convert.picture_source import PictureSource, decode_base64
from mllm_npu.data.convert.plain_pickle import load_plain
from mllm_npu.data.convert.record_kind import PictureMembers, encode_json
from mllm_npu.data.convert.source_format import Options, Part, Refusal, SourceFormat, refuse
from mllm_npu.data.convert.tar_samples import Sample, read_samples
from mllm_npu.data.convert.webdataset_format import holds_pickles, split_tars
from mllm_npu.data.row import Row
from mllm_npu.errors import SkipSample

MAX_TEXT_CHARS = 64 * 1024 * 1024
MAX_PLACES = 10_000


class InterleavedFormat(SourceFormat):
    """Reads ``*.pkl`` members ``{"images": [None, base64], "texts": ["a cat", None]}``.

    At every place there is either a picture or a text. The original drew lots at every visit
    whether a picture is read or drawn; a converted row holds the lot that its key and the place
    give, ``draw_share`` of them drawn.
    """

    name = "interleaved"
    aliases = ("interleaved_pickle",)
    summary = "the original's tars of pickled documents (images and texts), read without pickle"

    def recognises(self, listing: Listing) -> bool:
        """Whether there is a tar with a pickle in its first rows."""
        tars = listing.paths(".tar")
        return bool(tars) and holds_pickles(tars[0])

    def split(self, listing: Listing, options: Options) -> Sequence[Part]:
        """Every tar is a part."""
        return split_tars(listing)

    def read(self, part: Part, options: Options) -> Iterator[Row | Refusal]:
        """One row for each document."""
        nowhere = PictureSource(folder=Path(part.path).parent)
        for sample in read_samples(Path(part.path)):
            if isinstance(sample, Refusal):
                yield sample
                continue
            try:
                yield _to_row(sample, nowhere, options.draw_share)
            except SkipSample as error:
                yield refuse(error, sample.key)


def _to_row(sample: Sample, pictures: PictureSource, draw_share: float) -> Row:
    (extension, data), *others = sample.contents
    if others or not is_pickle_file(extension):
        names = ", ".join(name for name, _ in sample.contents)
        raise SkipSample(f"not one pickle alone: {names}")
    document = load_plain(data)
    if not isinstance(document, dict):
        raise SkipSample("document is not a dict")
    numbered = PictureMembers(pictures=pictures)
    parts = []
    num_chars = 0
    for place, (image, text) in enumerate(_places(document)):
        if image is not None:
            name = numbered.add(decode_base64(image) if isinstance(image, str) else image)
            draw = {"draw": True} if _lot(sample.key, place) < draw_share else {}
            parts.append({"image": name, **draw})
        elif text:
            num_chars += len(text)
            if num_chars > MAX_TEXT_CHARS:
                raise SkipSample("document too long")
            parts.append({"text": text})
    if not parts:
        raise SkipSample("document empty")
    return Row(
        key=sample.key, members={**numbered.members(), "json": encode_json({"parts": parts})}
    )


def _places(document: Mapping[Any, Any]) -> Iterator[tuple[str | bytes | None, str | None]]:
    images, texts = document.get("images"), document.get("texts")
    if not isinstance(images, list | tuple) or not isinstance(texts, list | tuple):
        raise SkipSample("images or texts missing")
    if len(images) != len(texts):
        raise SkipSample(f"images and texts differ in number: {len(images)}, {len(texts)}")
    if len(images) > MAX_PLACES:
        raise SkipSample(f"document too long: {len(images)} places")
    for image, text in zip(images, texts, strict=True):
        if (image is None) == (text is None):
            raise SkipSample("not either a picture or a text at every place")
        if not isinstance(image, str | bytes | None) or not isinstance(text, str | None):
            raise SkipSample("picture is not base64 or text is not a text")
        yield image, text


def _lot(key: str, place: int) -> float:
    """A number from 0 to 1 that depends on nothing but the place in the document."""
    digest = hashlib.sha256(f"{key}/{place}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
