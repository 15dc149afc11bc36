"""The data that the benchmark of the data pipeline reads, made from a folder of pictures."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mllm_npu.data.row import Row
from mllm_npu.data.shards import write_shard
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

GRIDS = ("1x1", "1x2", "1x3", "1x4", "1x5", "2x1", "3x1", "4x1", "5x1", "2x2", "2x3", "3x2")
TILE, TOKENS_PER_PICTURE, TOKENS_PER_PACK = 448, 64, 4096
READ_SHARE = 0.1
LONG, SHORT, QUALITY = 640, 480, 90
_WORD_LIST = """
a photo of the small large old new red green blue white black bright
dark wooden metal animal plant building street field water sky tree stone grass table
chair on in under behind near with without two three many several standing lying
running looking seen from above below
"""
WORDS = tuple(_WORD_LIST.split())


def make_captions(photos: Path, out: Path, *, copies: int, rows_per_shard: int = 316) -> int:
    """Write pictures of about 640x480 with captions of 8 to 40 words; returns their number."""
    paths = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpeg", ".jpg"))
    if not paths:
        message = f"No JPEG pictures are in {photos}. Give a folder of photos with --photos."
        raise SystemExit(message)
    pictures = [_resize(path) for path in paths]
    rng = random.Random(0)
    rows = [
        Row(key=f"{copy}-{path.stem}", members={"jpg": picture, "json": _caption(path, rng)})
        for copy in range(copies)
        for path, picture in zip(paths, pictures, strict=True)
    ]
    rng.shuffle(rows)
    for number, start in enumerate(range(0, len(rows), rows_per_shard)):
        write_shard(out / f"captions-{number:04d}.tar", rows[start : start + rows_per_shard])
    return len(rows)


def make_texts(out: Path, *, count: int, words: int = 56) -> None:
    """Write texts of about 60 tokens."""
    rng = random.Random(1)
    rows: Iterator[Row] = (
        Row(
            key=f"{number:06d}",
            members={"json": json.dumps({"text": _sentence(rng, words)}).encode()},
        )
        for number in range(count)
    )
    write_shard(out / "texts-0000.tar", rows)


def build_processor(*, exact: bool = False) -> Processor:
    """The published caption config: 12 grids, base 448, 64 tokens.

    Args:
        exact: resize by Pillow instead of torch.
    """
    rng = random.Random(2)
    texts = [_sentence(rng, 30) for _ in range(400)]
    tokenizer = train_tokenizer(texts, vocab_size=600)
    add_special_tokens(tokenizer, SpecialTokens())
    return Processor(
        tokenizer=tokenizer,
        any_resolution=AnyResolution(grids=GRIDS, tile_size=TILE, exact=exact),
        chat_template=ChatTemplate(),
        num_read_tokens=TOKENS_PER_PICTURE,
        num_drawn_tokens=TOKENS_PER_PICTURE,
        max_tokens=TOKENS_PER_PACK,
    )


def _resize(path: Path) -> bytes:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    size = (LONG, SHORT) if picture.width >= picture.height else (SHORT, LONG)
    stream = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def _caption(path: Path, rng: random.Random) -> bytes:
    label = path.stem.partition("_")[2].replace("_", " ")
    caption = f"a photo of a {label}, {_sentence(rng, rng.randint(4, 34))}"
    return json.dumps({"caption": caption}).encode()


def _sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))
