"""The keys and values of what has been read: one row per sequence, each with a length of its own.

Slot s of a row holds the token at position s, so a query at position p sees the slots 0..p and
never looks at what lies behind: rows of unequal length need no padding mask, and a row may be
started anew while the others go on.
"""

import torch
from torch import Tensor


class KVCache:
    """Room for `rows` sequences of at most `capacity` tokens, in every one of `layers` layers.

    keys, values: [rows, K, capacity, C] per layer
    lengths:      [rows] int64, the tokens of each row
    longest:      no row is longer; known without asking the device
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
        shape = (rows, heads, capacity, channels)
        # Zeros, not whatever was there: a hidden slot counts 0 times its content, and 0 * nan is nan.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.longest = 0
        self.capacity = capacity
        self.dtype = dtype
        self._whole: KVCache | None = None
        self._index: Tensor | slice = slice(None)

    def start(self, index: Tensor) -> "KVCache":
        """The rows `index`, empty, to read new sequences into; what they held is forgotten."""
        view = object.__new__(KVCache)
        view.keys, view.values, view.capacity = self.keys, self.values, self.capacity
        view.dtype = self.dtype
        view.lengths = torch.zeros(len(index), dtype=torch.long, device=self.lengths.device)
        view.longest, view._whole, view._index = 0, self, index
        return view

    def keep(self, index: Tensor) -> None:
        """Only the rows `index` remain, in that order."""
        self.keys = [each.index_select(0, index) for each in self.keys]
        self.values = [each.index_select(0, index) for each in self.values]
        self.lengths = self.lengths[index]
        self.longest = int(self.lengths.max()) if len(index) else 0

    def put(self, layer: int, k: Tensor, v: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Stores k, v [B, T, K, C] at positions [B, T]; gives back the slots [B, K, S, C] that any
        of the rows has filled."""
        keys, values, stop = self.keys[layer], self.values[layer], self.longest + k.shape[1]
        assert stop <= self.capacity, f"{stop} tokens in a cache of {self.capacity}"
        if self.longest == 0:
            keys[self._index, :, :stop] = k.transpose(1, 2).to(keys.dtype)
            values[self._index, :, :stop] = v.transpose(1, 2).to(values.dtype)
        else:
            assert self._whole is None, "rows under way are continued through the whole cache"
            rows = torch.arange(len(k), device=k.device)[:, None]
            keys[rows, :, positions] = k.to(keys.dtype)
            values[rows, :, positions] = v.to(values.dtype)
        return keys[:, :, :stop], values[:, :, :stop]

    def advance(self, tokens: int, counts: Tensor | None) -> None:
        """After a pass over `tokens` columns, of which `counts` [B] were real (None: all)."""
        self.lengths += tokens if counts is None else counts
        self.longest += tokens
        if self._whole is not None:
            self._whole.lengths[self._index] = self.lengths
            self._whole.longest = int(self._whole.lengths.max())
