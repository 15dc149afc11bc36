"""World: a made data set on disk, shards per kind and split with a tokenizer and its own papers.

``<folder>/<kind>/<split>-0000.tar`` and their indexes, ``tokenizer/``, ``splits.json``,
``world.json``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mllm_npu.data.index import build_index
from mllm_npu.data.row import Row
from mllm_npu.data.shards import write_shard
from mllm_npu.errors import DataError
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

Progress = Callable[[int, int], None]
"""Is told how many rows are done, and of how many."""

PAPER = "world.json"
UNFINISHED = f"{PAPER}.partial"
"""Lies in a world's folder from its first shard on until its papers are written."""
_TEXT_FIELDS = ("caption", "conversations", "parts", "text", "messages", "content", "instruction")
_ROWS_PER_SHARD = 10_000
_WORD_REPEATS = 200
"""How often a word stands in the tokenizer's training texts so that it surely becomes one token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What ``world.json`` says.

    Args:
        name: digits or scenes.
        version: of the recipe; another version is another world.
        settings: what it was made with.
        counts: rows by kind and split.
        vocab_size: tokens of its tokenizer, special ones included.
        sha256: of all shards in order.
    """

    name: str
    version: int
    settings: Mapping[str, Any]
    counts: Mapping[str, Mapping[str, int]]
    vocab_size: int
    sha256: str


def load_world(folder: str | Path) -> World:
    """Read the papers of a made world.

    Raises:
        DataError: if there is no finished world.
    """
    path = Path(folder) / PAPER
    try:
        return World(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"A world was asked for in {folder}, {path} cannot be read ({error}). "
            f"Make it: mllm-npu data digits --out {folder} (or data scenes)"
        ) from error


def text_strings(value: Any) -> Iterator[str]:
    """Texts a model may see in a row's json, in order; what stands for the judge is left out."""
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from text_strings(item)
        case dict():
            for name in _TEXT_FIELDS:
                if name in value:
                    yield from text_strings(value[name])


def pack_json(value: Mapping[str, Any]) -> bytes:
    """A json member, short and readable."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(slots=True, kw_only=True)
class WorldWriter:
    """Writes a world; ``world.json`` comes last, so that a world without it is not finished.

    Args:
        folder: where; what an earlier run left there is replaced.
        total: rows that will be written, for the progress.
        progress: is called now and then.
    """

    folder: Path
    total: int
    progress: Progress | None = None
    _counts: dict[str, dict[str, int]] = field(default_factory=dict)
    _texts: list[str] = field(default_factory=list)
    _hash: Any = field(default_factory=hashlib.sha256)
    _done: int = 0

    def __post_init__(self) -> None:
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / UNFINISHED).touch()
            (self.folder / PAPER).unlink(missing_ok=True)

    def write(self, kind: str, split: Split, rows: Iterable[Row]) -> None:
        """Write the shards of one kind and split, with indexes; remembers the training texts.

        Raises:
            DataError: the folder cannot be written.
        """
        with _writing(self.folder):
            for old in (self.folder / kind).glob(f"{split}-*.tar*"):
                old.unlink()
        stream = self._watch(rows, keep_texts=split == "train")
        count = number = 0
        while first := next(stream, None):
            path = self.folder / kind / f"{split}-{number:04d}.tar"
            count += write_shard(path, _head(first, stream, _ROWS_PER_SHARD))
            build_index(path)
            self._hash.update(path.read_bytes())
            number += 1
        self._counts.setdefault(kind, {})[split] = count

    def finish(
        self,
        *,
        name: str,
        version: int,
        settings: Mapping[str, Any],
        splits: Mapping[str, Any],
        vocab_size: int,
        num_slots: int,
        whole_words: Sequence[str],
    ) -> World:
        """Train the tokenizer on the training texts and write the papers.

        Args:
            name: of the world.
            version: of its recipe.
            settings: what it was made with.
            splits: what belongs to which split, for ``splits.json``.
            vocab_size: tokens of the tokenizer, image tokens not counted.
            num_slots: image slots of the tokenizer.
            whole_words: answers that must be one token each.
        """
        repeats = max(_WORD_REPEATS, len(self._texts) // 10)
        kept = [form for word in whole_words for form in (word, f"a {word}")]
        tokenizer = train_tokenizer([*self._texts, *kept * repeats], vocab_size=vocab_size)
        add_special_tokens(tokenizer, SpecialTokens(num_slots=num_slots, num_locations=0))
        with _writing(self.folder):
            shutil.rmtree(self.folder / "tokenizer", ignore_errors=True)
            tokenizer.save_pretrained(str(self.folder / "tokenizer"))
        self._save("splits.json", splits)
        world = World(
            name=name,
            version=version,
            settings=dict(settings),
            counts=self._counts,
            vocab_size=len(tokenizer),
            sha256=self._hash.hexdigest(),
        )
        self._save(PAPER, asdict(world))
        if self.progress:
            self.progress(self.total, self.total)
        return world

    def _watch(self, rows: Iterable[Row], *, keep_texts: bool) -> Iterator[Row]:
        for row in rows:
            if keep_texts:
                self._texts.extend(text_strings(row.json()))
            yield row
            self._done += 1
            if self.progress and self._done % 100 == 0:
                self.progress(min(self._done, self.total), self.total)

    def _save(self, name: str, value: Mapping[str, Any]) -> None:
        partial = self.folder / f"{name}.partial"
        with _writing(self.folder):
            partial.write_text(json.dumps(value, indent=1) + "\n")
            partial.replace(self.folder / name)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what a disk refuses into one message."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"A world was to be written to {folder}: {error}. "
            "Choose a folder that can be written, on a disk with room."
        ) from error


def _head(first: Row, rest: Iterator[Row], count: int) -> Iterator[Row]:
    yield first
    for _, row in zip(range(count - 1), rest, strict=False):
        yield row
