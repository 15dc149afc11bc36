"""The digits world: real handwritten digits in every kind of row, small enough for two cores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from mllm_npu.data.row import Row
from mllm_npu.data.worlds.digit_rows import DigitRows
from mllm_npu.data.worlds.digit_scans import DigitScans
from mllm_npu.data.worlds.digit_words import NUMBERS, UNSEEN_DRAW, number_sentences
from mllm_npu.data.worlds.world import SPLITS, Progress, Split, World, WorldWriter, pack_json
from mllm_npu.errors import ConfigError

VERSION = 2
NUM_SLOTS = 16
_SHARES = {
    "read": 0.24,
    "draw": 0.36,
    "sum": 0.25,
    "larger": 0.04,
    "draw_larger": 0.02,
    "look_then_draw": 0.05,
    "strip": 0.04,
}
_DRAWS_PER_UNSEEN_WORDING = 20


def make_digits(
    folder: str | Path,
    *,
    seed: int = 0,
    num_strips: int = 3000,
    num_pages: int = 3000,
    num_conversations: int = 8000,
    scale: float = 1.0,
    vocab_size: int = 600,
    progress: Progress | None = None,
) -> World:
    """Write the digits world: caption, ocr, interleaved, text and instruction shards.

    Valid and test have their own fixed sizes. The split of the scans does not depend on any
    argument. The test shards of ``instruction`` ask every held-out scan once; those of ``unseen``
    ask and draw in wordings that training never has.

    Args:
        folder: where; an earlier world there is replaced.
        seed: of what is composed.
        num_strips: training rows of wide strips.
        num_pages: training rows of interleaved documents.
        num_conversations: training rows of chats.
        scale: factor on all numbers, scans included; for tiny worlds in tests.
        vocab_size: tokens of the tokenizer, image tokens not counted.
        progress: is told rows done and rows in all.

    Raises:
        ConfigError: if scale is not in (0, 1].
        DataError: if scikit-learn is missing or the folder cannot be written.
    """
    if not 0 < scale <= 1:
        raise ConfigError(f"scale={scale} was asked for. Use more than 0 and at most 1.")
    scans = DigitScans(share=scale)
    train = (num_strips, num_pages, num_conversations)
    sizes: dict[Split, tuple[int, ...]] = {"train": train, "valid": (150, 150, 450)}
    sizes["test"] = (300, 300, 0)
    sizes = {split: tuple(_scaled(n, scale) for n in given) for split, given in sizes.items()}
    num_scans = {split: len(ids) for split, ids in scans.ids.items()}
    unseen_draws = _scaled(_DRAWS_PER_UNSEEN_WORDING, scale)
    total = 2 * sum(num_scans.values())
    total += sum(map(sum, sizes.values())) + len(UNSEEN_DRAW) * unseen_draws + 2000
    writer = WorldWriter(folder=Path(folder), total=total, progress=progress)
    for split in SPLITS:
        rows = DigitRows(scans=scans, split=split, seed=seed)
        strips, pages, conversations = sizes[split]
        counts = _shared(conversations) if conversations else _test_counts(scans, scale)
        writer.write("caption", split, rows.captions())
        writer.write("ocr", split, rows.strips(strips))
        writer.write("interleaved", split, rows.pages(pages))
        writer.write("text", split, _sentences(split, scale))
        writer.write("instruction", split, rows.conversations(counts))
        if split == "test":
            writer.write("unseen", split, rows.unseen_wordings(unseen_draws))
    settings = {
        "seed": seed,
        "num_strips": num_strips,
        "num_pages": num_pages,
        "num_conversations": num_conversations,
        "scale": scale,
    }
    return writer.finish(
        name="digits",
        version=VERSION,
        settings=settings,
        splits={split: scans.ids[split] for split in SPLITS},
        vocab_size=vocab_size,
        num_slots=NUM_SLOTS,
        whole_words=NUMBERS,
    )


def _scaled(number: int, scale: float) -> int:
    return max(1, round(number * scale)) if number else 0


def _shared(total: int) -> dict[str, int]:
    return {kind: max(1, round(share * total)) for kind, share in _SHARES.items()}


def _test_counts(scans: DigitScans, scale: float) -> dict[str, int]:
    asked = {"sum": 300, "larger": 100, "draw_larger": 50, "look_then_draw": 50, "strip": 50}
    counts = {kind: _scaled(number, scale) for kind, number in asked.items()}
    return {"read": len(scans.ids["test"]), "draw": _scaled(200, scale), **counts}


def _sentences(split: Split, scale: float) -> Iterator[Row]:
    """Sentences about numbers; a sentence is of one split only, by its hash."""
    number = 0
    for sentence in dict.fromkeys(number_sentences()):
        rank = int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:4], "big") / 2**32
        home: Split = "test" if rank < 0.05 else "valid" if rank < 0.1 else "train"
        if home == split and (number == 0 or rank * 997 % 1 < scale):
            content = {"text": sentence, "meta": {"kind": "text", "scans": []}}
            yield Row(key=f"text-{split}-{number:06d}", members={"json": pack_json(content)})
            number += 1
