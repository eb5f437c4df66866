"""The keys and values of what has been read: one row per sequence, each with a length of its own.

Slot s of a row holds the token at position s, so a query at position p sees the slots 0..p and
never looks at what lies behind: rows of unequal length need no padding mask, and a row may be
started anew while the others go on.
"""

import torch
from torch import Tensor


class KVCache:
    """Room for `rows` sequences of at most `capacity` tokens, in every one of `layers` layers.

    pairs:    [rows, capacity, 2 K, C] per layer: a token's keys, then its values, side by side, so
              that a new token is written by one copy (model/decode.py)
    lengths:  [rows] int64, the tokens of each row
    longest:  no row is longer; known without asking the device
    """

    can_refill = True
    """start() works while other rows are under way."""

    def __init__(
        self,
        layers: int,
        rows: int,
        capacity: int,
        heads: int,
        channels: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        shape = (rows, capacity, 2 * heads, channels)
        # Zeros, not whatever was there: a hidden slot counts 0 times its content, and 0 * nan is nan.
        self.pairs = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.longest = 0
        self.capacity, self.heads, self.dtype = capacity, heads, dtype
        self._whole: KVCache | None = None
        self._index: Tensor | slice = slice(None)

    def start(self, index: Tensor) -> "KVCache":
        """The rows `index`, empty, to read new sequences into; what they held is forgotten."""
        view = object.__new__(KVCache)
        view.pairs, view.capacity = self.pairs, self.capacity
        view.heads, view.dtype = self.heads, self.dtype
        view.lengths = torch.zeros(len(index), dtype=torch.long, device=self.lengths.device)
        view.longest, view._whole, view._index = 0, self, index
        return view

    def keep(self, index: Tensor) -> None:
        """Only the rows `index` remain, in that order. Those that stay in their place cost nothing."""
        moved = (index != torch.arange(len(index), device=index.device)).nonzero()[:, 0]
        self.lengths = self.lengths[index]
        self.longest = int(self.lengths.max()) if len(index) else 0
        for layer, pairs in enumerate(self.pairs):
            if len(moved):
                pairs[moved, : self.longest] = pairs[index[moved], : self.longest]
            self.pairs[layer] = pairs[: len(index)]

    def put(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Stores k, v [B, T, K, C] at positions [B, T]; gives back seen() with them among it."""
        stop = self.longest + k.shape[1]
        assert stop <= self.capacity, f"{stop} tokens in a cache of {self.capacity}"
        pairs, both = self.pairs[layer], torch.cat([k, v], 2).to(self.dtype)
        if self.longest == 0:
            pairs[self._index, :stop] = both
        else:
            assert self._whole is None, "rows under way are continued through the whole cache"
            pairs[torch.arange(len(k), device=k.device)[:, None], positions] = both
        return self.seen(layer, stop)

    def seen(self, layer: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values [B, K, stop, C] of the slots before `stop`."""
        return self.pairs[layer][:, :stop].transpose(1, 2).split(self.heads, 1)

    def advance(self, tokens: int, counts: Tensor | None) -> None:
        """After a pass over `tokens` columns, of which `counts` [B] were real (None: all)."""
        self.lengths += tokens if counts is None else counts
        self.longest += tokens
        if self._whole is not None:
            self._whole.lengths[self._index] = self.lengths
            self._whole.longest = int(self._whole.lengths.max())
