"""The keys and values of what has been read: one row per sequence, each with a length of its own.

In a layer that sees everything, slot s of a row holds the token at position s, so a query at position
p sees the slots 0..p and never looks at what lies behind: rows of unequal length need no padding
mask, and a row may be started anew while the others go on.

A layer with a window of W tokens has W slots, and the token at position p lies in slot p mod W, in the
place of the one that has just left the window. Keys carry their positions, so their order is nothing.
"""

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from endonym.model.kernels import cached_mask, window_mask


class KVCache:
    """Room for `rows` sequences of at most `capacity` tokens, in one layer for each of `windows`.

    windows:  W of each layer, None where it sees everything
    sizes:    slots of each layer: capacity, or W where that is less
    pairs:    [rows, size, 2 K, C] per layer: a token's keys, then its values, side by side, so that a
              new token is written by one copy (model/decode.py)
    lengths:  [rows] int64, the tokens of each row
    longest:  no row is longer; known without asking the device
    """

    can_refill = True
    """start() works while other rows are under way."""

    def __init__(
        self,
        windows: Sequence[int | None],
        rows: int,
        capacity: int,
        heads: int,
        channels: int,
        dtype: torch.dtype,
        device: torch.device,
    ):
        self.windows = list(windows)
        self.sizes = [capacity if each is None else min(each, capacity) for each in windows]
        # Zeros, not whatever was there: a hidden slot counts 0 times its content, and 0 * nan is nan.
        self.pairs = [
            torch.zeros(rows, size, 2 * heads, channels, dtype=dtype, device=device)
            for size in self.sizes
        ]
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.longest = 0
        self.capacity, self.heads, self.dtype = capacity, heads, dtype
        self._whole: KVCache | None = None
        self._index: Tensor | slice = slice(None)

    def start(self, index: Tensor) -> "KVCache":
        """The rows `index`, empty, to read new sequences into; what they held is forgotten."""
        view = copy(self)
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

    def row(self, place: int, tokens: int) -> list[Tensor]:
        """What a row of so many tokens holds, layer by layer, to fill() others with."""
        return [pairs[place, :tokens].clone() for pairs in self.pairs]

    def fill(self, places: list[int], row: list[Tensor], tokens: int) -> None:
        """The rows `places` become what row() gave for one of so many tokens."""
        index = torch.tensor(places, device=self.lengths.device)
        for pairs, held in zip(self.pairs, row):
            pairs[index, : len(held)] = held
        self.lengths[index] = tokens
        self.longest = int(self.lengths.max())

    def put(
        self, layer: int, k: Tensor, v: Tensor, positions: Tensor, counts: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """Stores k, v [B, T, K, C], standing at positions [B, T]; `counts` [B] of them are real, the
        rest is padding to their right (None: all are).

        Gives back what the tokens may look at, keys and values [B, K, S, C]: the slots with the new
        tokens among them, or, in a sliding layer that reads several (or that is told `counts`), the
        slots as they were and then the new tokens. None while the rows are empty: the tokens see one
        another alone.
        """
        time, pairs = k.shape[1], self.pairs[layer]
        stop = self.longest + time
        assert stop <= self.capacity, f"{stop} tokens in a cache of {self.capacity}"
        both = torch.cat([k, v], 2).to(self.dtype)
        if self.longest == 0:
            if time <= self.sizes[layer]:
                pairs[self._index, :time] = both
            else:
                pairs[self._index] = self._newest(layer, both, counts)
            return None
        assert self._whole is None, "rows under way are continued through the whole cache"
        window = self.windows[layer]
        if window is None or (time == 1 and counts is None):
            rows = torch.arange(len(k), device=k.device)[:, None]
            pairs[rows, positions if window is None else positions % self.sizes[layer]] = both
            return self.seen(layer, stop)
        before = pairs
        self.pairs[layer] = self._newest(layer, both, counts)
        return torch.cat([before, both], 1).transpose(1, 2).split(self.heads, 1)

    def seen(self, layer: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values [B, K, S, C] of the slots that hold something of the first `stop` tokens."""
        return self.pairs[layer][:, :stop].transpose(1, 2).split(self.heads, 1)

    def held(self, layer: int, lengths: Tensor | None = None) -> Tensor:
        """[B, S]: the position whose token a slot of a layer holds, in rows of `lengths` [B] (None: as
        they are); negative where it holds none."""
        last = (self.lengths if lengths is None else lengths)[:, None] - 1
        slots = torch.arange(self.sizes[layer], device=last.device)
        return last - (last - slots) % self.sizes[layer]

    def window_mask(self, positions: Tensor, counts: Tensor | None, group: int) -> Tensor | None:
        """What attend_cached adds to the scores of sliding layers over what put() gives back for tokens
        at positions [B, T]; None where there are no such layers, or all is seen."""
        found = [layer for layer, window in enumerate(self.windows) if window is not None]
        if not found:
            return None
        layer, size = found[0], self.sizes[found[0]]
        if positions.shape[1] == 1 and counts is None:
            stop = min(self.longest + 1, size)
            return cached_mask(positions.clamp(max=size - 1), stop, group, self.dtype)
        held = self.held(layer)
        return window_mask(positions, held, self.windows[layer], group, self.dtype)

    def advance(self, tokens: int, counts: Tensor | None) -> None:
        """After a pass over `tokens` columns, of which `counts` [B] were real (None: all)."""
        self.lengths += tokens if counts is None else counts
        # Only where there is padding must the device be asked: a single row is read without a mask.
        self.longest = self.longest + tokens if counts is None else int(self.lengths.max())
        if self._whole is not None:
            self._whole.lengths[self._index] = self.lengths
            self._whole.longest = int(self._whole.lengths.max())

    def _newest(self, layer: int, both: Tensor, counts: Tensor | None) -> Tensor:
        """The pairs of a layer after `both` [B, T, 2 K, C], of which `counts` are real, was read."""
        after = self.lengths + (both.shape[1] if counts is None else counts)
        new = (
            self.held(layer, after) - self.lengths[:, None]
        )  # columns of `both`; negative: as before
        index = new.clamp(min=0)[..., None, None].expand(-1, -1, *both.shape[2:])
        found = both.gather(1, index)
        if self.longest == 0:
            return found
        return torch.where((new >= 0)[..., None, None], found, self.pairs[layer])
