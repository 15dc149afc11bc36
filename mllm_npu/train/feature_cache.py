"""What a frozen encoder gives for a picture, computed once per different picture.

It keeps the features of tiles, and the latents of pictures an image decoder learns.

Shape letters: I tiles, H W pixels, K vision tokens per tile, V vision width.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import torch
from torch import Tensor

from mllm_npu.device.transfer import on_host, to_device
from mllm_npu.errors import ConfigError

Encode = Callable[[Tensor], Tensor]
"""A vision encoder, or a function that gives one float tensor per picture."""
DIGEST_BYTES = 16
FIRST_ROWS = 1024


class FeatureCache:
    """A table of features where the encoder computes, keyed by the bytes of the tile.

    It lies on the encoder's device, because from there to the host and back a step would have to
    wait for the device.

    Args:
        max_gib: memory the table may take there; tiles beyond it are encoded each time they come.

    Attributes:
        num_hits: tiles that were found.
        num_encoded: tiles that had to be encoded.
    """

    def __init__(self, *, max_gib: float) -> None:
        if max_gib <= 0:
            raise ConfigError(f"max_gib={max_gib} was asked for. Use a size above 0, or no cache.")
        self.max_bytes = int(max_gib * 2**30)
        self.num_hits = 0
        self.num_encoded = 0
        self._encoder: Encode | None = None
        self._rows: dict[bytes, int] = {}
        self._table_NKV: Tensor | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Forget every tile."""
        self._rows = {}
        self._table_NKV = None

    @torch.no_grad()
    def features(
        self, tiles_I3HW: Tensor, encoder: Encode, *, device: torch.device | None = None
    ) -> Tensor:
        """Features of tiles, -> float [I, K, V] on the encoder's device; encodes what is new.

        Args:
            tiles_I3HW: uint8; on the host, else they are copied there to be looked up.
            encoder: frozen; another encoder than last time empties the table.
            device: where it computes; None asks its parameters.
        """
        if encoder != self._encoder:
            self.clear()
            self._encoder = encoder
        if device is None:
            device = next(encoder.parameters()).device  # type: ignore[attr-defined]
        keys = tile_keys(tiles_I3HW)
        unseen: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in self._rows:
                unseen.setdefault(key, place)
        self.num_hits += len(keys) - len(unseen)
        self.num_encoded += len(unseen)
        if not unseen:
            return self._look_up([self._rows[key] for key in keys], device)
        fresh_UKV = encoder(to_device(tiles_I3HW[list(unseen.values())], device))
        features_IKV = self._join(keys, list(unseen), fresh_UKV)
        self._store(list(unseen), fresh_UKV)
        return features_IKV

    def _join(self, keys: list[bytes], unseen: list[bytes], fresh_UKV: Tensor) -> Tensor:
        """Known and fresh features in the order of the tiles."""
        if len(unseen) == len(keys):
            return fresh_UKV
        known = [self._rows[key] for key in keys if key in self._rows]
        places = {key: len(known) + number for number, key in enumerate(unseen)}
        next_known = iter(range(len(known)))
        order = [places[key] if key in places else next(next_known) for key in keys]
        parts = [self._look_up(known, fresh_UKV.device)] if known else []
        joined = torch.cat([*parts, fresh_UKV])
        return joined.index_select(0, to_device(torch.tensor(order), joined.device))

    def _look_up(self, rows: list[int], device: torch.device) -> Tensor:
        if self._table_NKV is None:
            raise ConfigError("The feature cache was asked for tiles before it has stored any.")
        table_NKV = self._table_NKV
        found_IKV = table_NKV.index_select(0, to_device(torch.tensor(rows), table_NKV.device))
        return found_IKV.to(device)

    def _store(self, keys: list[bytes], features_UKV: Tensor) -> None:
        row_bytes = features_UKV[0].numel() * features_UKV.element_size()
        first = len(self._rows)
        num_fitting = min(len(keys), self.max_bytes // row_bytes - first)
        if num_fitting <= 0:
            return
        table = self._grow(first + num_fitting, self.max_bytes // row_bytes, features_UKV)
        table[first : first + num_fitting] = features_UKV[:num_fitting]
        self._rows.update(zip(keys[:num_fitting], range(first, first + num_fitting), strict=True))

    def _grow(self, num_needed: int, max_rows: int, like_UKV: Tensor) -> Tensor:
        table = self._table_NKV
        if table is not None and table.shape[0] >= num_needed:
            return table
        num_rows = min(max_rows, max(FIRST_ROWS, 2 * num_needed))
        larger = like_UKV.new_empty(num_rows, *like_UKV.shape[1:])
        if table is not None:
            larger[: len(self._rows)] = table[: len(self._rows)]
        self._table_NKV = larger
        return larger


@on_host
def tile_keys(tiles_I3HW: Tensor) -> list[bytes]:
    """A digest of the bytes of each tile, uint8 [I, 3, H, W] -> 16 bytes each."""
    rows = tiles_I3HW.detach().cpu().contiguous().view(tiles_I3HW.shape[0], -1).numpy()
    return [blake2b(row, digest_size=DIGEST_BYTES).digest() for row in rows]
