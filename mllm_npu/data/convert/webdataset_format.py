"""Webdataset format: tars of pictures with txt, json or cls; also the original's caption tars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from mllm_npu.data.convert.listing import Listing
from mllm_npu.data.convert.loose_row import build_row, is_pickle_file
from mllm_npu.data.convert.source_format import Options, Part, Refusal, SourceFormat, refuse
from mllm_npu.data.convert.tar_samples import Sample, read_samples
from mllm_npu.data.row import Row
from mllm_npu.errors import SkipSample

_FEW = 20


class WebdatasetFormat(SourceFormat):
    """Reads tars whose files of one key are a row: ``7.jpg`` with ``7.txt``, ``7.img``, ..."""

    name = "webdataset"
    aliases = ("caption_tar",)
    summary = "webdataset tars: jpg, png, webp or img with txt, json or cls"

    def recognises(self, listing: Listing) -> bool:
        """Whether there is a tar whose first rows hold no pickle."""
        tars = listing.paths(".tar")
        return bool(tars) and not holds_pickles(tars[0])

    def split(self, listing: Listing, options: Options) -> Sequence[Part]:
        """Every tar is a part."""
        return split_tars(listing)

    def read(self, part: Part, options: Options) -> Iterator[Row | Refusal]:
        """One row for each key."""
        for sample in read_samples(Path(part.path)):
            if isinstance(sample, Refusal):
                yield sample
                continue
            try:
                yield build_row(sample.key, sample.contents, options.class_names)
            except SkipSample as error:
                yield refuse(error, sample.key)


def split_tars(listing: Listing) -> list[Part]:
    """A part for each tar."""
    return [Part(path=str(path), num_bytes=path.stat().st_size) for path in listing.paths(".tar")]


def holds_pickles(tar: Path) -> bool:
    """Whether one of the first rows of a tar holds a pickle."""
    return any(
        is_pickle_file(extension)
        for sample in islice(read_samples(tar), _FEW)
        if isinstance(sample, Sample)
        for extension, _ in sample.contents
    )
