"""Keep what the language model reads of a tile, so that a picture that comes again is not encoded.

Shape letters: Q tokens of a read tile, D language width.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from torch import Tensor

from mllm_npu.batch import Sample

_DIGEST_BYTES = 16


class TileCache:
    """Tokens of tiles by name; the one that was asked for longest ago leaves first.

    Args:
        max_bytes: memory of all tokens.

    Attributes:
        num_hits: tiles that were found.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_hits = 0
        self._num_bytes = 0
        self._tokens: OrderedDict[bytes, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tokens)

    def find(self, name: bytes) -> Tensor | None:
        """Tokens [Q, D] of a tile, or None."""
        found = self._tokens.get(name)
        if found is not None:
            self._tokens.move_to_end(name)
            self.num_hits += 1
        return found

    def keep(self, name: bytes, tokens_QD: Tensor) -> None:
        """Remember the tokens of a tile, a copy of them."""
        size = tokens_QD.numel() * tokens_QD.element_size()
        if name in self._tokens or size > self.max_bytes:
            return
        self._tokens[name] = tokens_QD.clone()
        self._num_bytes += size
        while self._num_bytes > self.max_bytes:
            _, oldest = self._tokens.popitem(last=False)
            self._num_bytes -= oldest.numel() * oldest.element_size()


def name_tiles(sample: Sample) -> tuple[bytes, ...]:
    """Name of each read tile of a sample: a digest of its pixels and of its place."""
    names = []
    for number in sample.read_tiles.tolist():
        digest = blake2b(sample.tiles[number].numpy().tobytes(), digest_size=_DIGEST_BYTES)
        digest.update(sample.tile_positions[number].numpy().tobytes())
        names.append(digest.digest())
    return tuple(names)
