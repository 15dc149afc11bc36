"""Check a downloaded folder against its card: nothing missing, no half file, the published content.

Where a card does not know a file to the byte, the file itself is asked: a safetensors file says in
its header how long it is, and an index names every shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mllm_npu.errors import WeightsError
from mllm_npu.zoo.card import Card, CardFile

Progress = Callable[[int, int], None]
"""Called with the bytes that were read and all there are."""

_CHUNK = 2**22
_LENGTH_BYTES = 8
_LONGEST_HEADER = 2**27
_ROUNDING = 0.006
"""Of 10^9 bytes: pages round to two decimals, and some cut them off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check has seen.

    Args:
        num_files: files of the card that are there.
        num_hashed: those whose content is the published one.
        num_bytes: of all of them.
    """

    num_files: int
    num_hashed: int
    num_bytes: int


def check_folder(card: Card, folder: Path, *, progress: Progress = lambda _, __: None) -> Checked:
    """Compare a folder with a card: names, sizes, then the hashes that are known.

    Args:
        card: of the model.
        folder: where it was downloaded to.
        progress: moves while files are hashed.

    Raises:
        WeightsError: naming the file: it is missing, cut off, of another size or of other content.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} was to be checked; there is no such folder.{_advice(card)}")
    _refuse_half_downloads(folder, card)
    for file in card.files:
        _check_size(file, folder, card)
    for index in sorted(folder.rglob("*.index.json")):
        _check_index(index, card)
    hashed = [file for file in card.files if file.sha256 is not None]
    total = sum((folder / file.path).stat().st_size for file in hashed)
    done = 0
    for file in hashed:
        path = folder / file.path
        found = hash_file(path, progress=_moving(progress, done, total))
        if found != file.sha256:
            raise WeightsError(
                f"{path} is of the right size, and its content is another: its SHA-256 is {found}, "
                f"the card of {card.name} has {file.sha256}. Delete the file and get it again, or "
                f"another release was meant.{_advice(card)}"
            )
        done += path.stat().st_size
    return Checked(
        num_files=len(card.files),
        num_hashed=len(hashed),
        num_bytes=sum((folder / file.path).stat().st_size for file in card.files),
    )


def hash_file(path: Path, *, progress: Callable[[int], None] = lambda _: None) -> str:
    """SHA-256 of a file in hex.

    Args:
        path: of the file.
        progress: called with the bytes that were read.
    """
    digest, read = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            read += len(chunk)
            progress(read)
    return digest.hexdigest()


def _moving(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    """Tells the bytes of one file as part of all."""
    return lambda read: progress(before + read, total)


def safetensors_size(path: Path) -> int | None:
    """Bytes that a safetensors file says it has; None where even its header is cut off."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if not 0 < length <= _LONGEST_HEADER:
            return None
        header = file.read(length)
    try:
        entries = json.loads(header)
    except ValueError:
        return None
    ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    return _LENGTH_BYTES + length + max(ends, default=0)


def _refuse_half_downloads(folder: Path, card: Card) -> None:
    half = sorted(folder.rglob("*.incomplete"))
    if half:
        raise WeightsError(
            f"{folder} holds half a download: {half[0].relative_to(folder)} "
            f"({len(half)} such files). The same command goes on with it.{_advice(card)}"
        )


def _check_size(file: CardFile, folder: Path, card: Card) -> None:
    path = folder / file.path
    if not path.is_file():
        raise WeightsError(
            f"{path} is missing, and belongs to {card.name}. The download is not complete."
            f"{_advice(card)}"
        )
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise _wrong_size(path, size, f"{file.size} bytes", size < file.size, card)
    if file.gigabytes is not None and abs(size / 1e9 - file.gigabytes) > _ROUNDING:
        wanted = f"about {file.gigabytes} GB"
        raise _wrong_size(path, size, wanted, size / 1e9 < file.gigabytes, card)
    if path.suffix == ".safetensors":
        stated = safetensors_size(path)
        if stated != size:
            wanted = "a whole header" if stated is None else f"{stated} bytes, as its header says,"
            raise _wrong_size(path, size, wanted, stated is None or size < stated, card)


def _check_index(index: Path, card: Card) -> None:
    """Every shard that an index names is there."""
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"{index} cannot be read: {error}. Get it again.{_advice(card)}"
        ) from error
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise WeightsError(
            f"{index} names {len(shards)} files, and {len(missing)} of them are missing: "
            f"{missing[0]}. The download is not complete.{_advice(card)}"
        )


def _wrong_size(path: Path, size: int, wanted: str, is_short: bool, card: Card) -> WeightsError:
    what = "It was cut off." if is_short else "It is another file."
    return WeightsError(
        f"{path} has {size} bytes, and {wanted} are expected. {what} Delete it and get it "
        f"again.{_advice(card)}"
    )


def _advice(card: Card) -> str:
    return f" {card.commands.get[0]}" if card.commands.get else ""
