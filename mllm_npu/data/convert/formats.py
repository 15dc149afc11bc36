"""Formats: everything that can be converted, and the choice among it."""

from __future__ import annotations

from mllm_npu.data.convert.arrow_format import ArrowFormat
from mllm_npu.data.convert.folder import FolderFormat
from mllm_npu.data.convert.interleaved_format import InterleavedFormat
from mllm_npu.data.convert.json_format import JsonFormat
from mllm_npu.data.convert.listing import Listing
from mllm_npu.data.convert.parquet_format import ParquetFormat
from mllm_npu.data.convert.record_rows import KINDS
from mllm_npu.data.convert.source_format import SourceFormat
from mllm_npu.data.convert.webdataset_format import WebdatasetFormat
from mllm_npu.errors import ConfigError, DataError

_PICTURES = FolderFormat()
FORMATS: tuple[SourceFormat, ...] = (
    WebdatasetFormat(),
    InterleavedFormat(),
    *(JsonFormat(kind=kind) for kind in KINDS),
    ParquetFormat(),
    ArrowFormat(),
    _PICTURES,
)


def describe_formats() -> str:
    """A line for each format."""
    return "\n".join(f"{one.name}: {one.summary}" for one in FORMATS)


def format_called(name: str) -> SourceFormat:
    """The format of a name.

    Raises:
        ConfigError: if there is none.
    """
    for one in FORMATS:
        if name.lower() in (one.name, *one.aliases):
            return one
    known = ", ".join("/".join((one.name, *one.aliases)) for one in FORMATS)
    raise ConfigError(f"The format {name!r} was asked for. Known are {known}.")


def choose_format(listing: Listing) -> SourceFormat:
    """The format of what lies there; pictures beside another format are taken for its pictures.

    Raises:
        DataError: if none recognises it, or several do.
    """
    found = [one for one in FORMATS if one is not _PICTURES and one.recognises(listing)]
    if not found and _PICTURES.recognises(listing):
        found = [_PICTURES]
    if len(found) == 1:
        return found[0]
    there = f"{listing.root} holds {listing.describe()}"
    if found:
        names = " or ".join(one.name for one in found)
        raise DataError(f"{there}, which is {names}. Choose with --format, or give one file of it.")
    raise DataError(
        f"{there}, which is none of the formats known:\n{describe_formats()}\n"
        "Give another path, or choose with --format."
    )
