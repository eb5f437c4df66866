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
    keys, values: [rows, K, size, C] per layer: what a head sees lies in one piece, so that attention of
              one query, which is all reading, reads straight on
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
        self.keys, self.values = (
            [
                torch.zeros(rows, heads, size, channels, dtype=dtype, device=device)
                for size in self.sizes
            ]
            for _ in range(2)
        )
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
        for held in (self.keys, self.values):
            for layer, each in enumerate(held):
                if len(moved):
                    each[moved, :, : self.longest] = each[index[moved], :, : self.longest]
                held[layer] = each[: len(index)]

    def row(self, place: int, tokens: int) -> list[Tensor]:
        """What a row of so many tokens holds, layer by layer, to fill() others with."""
        return [each[place, :, :tokens].clone() for each in (*self.keys, *self.values)]

    def fill(self, places: list[int], row: list[Tensor], tokens: int) -> None:
        """The rows `places` become what row() gave for one of so many tokens."""
        index = torch.tensor(places, device=self.lengths.device)
        for each, held in zip((*self.keys, *self.values), row):
            each[index, :, : held.shape[1]] = held
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
        time, size = k.shape[1], self.sizes[layer]
        stop = self.longest + time
        assert stop <= self.capacity, f"{stop} tokens in a cache of {self.capacity}"
        window = self.windows[layer]
        kept = []
        for held, new in ((self.keys, k), (self.values, v)):
            each, new = held[layer], new.to(self.dtype)
            if self.longest == 0:
                if time <= size:
                    each[self._index, :, :time] = new.transpose(1, 2)
                else:
                    each[self._index] = self._newest(layer, each, new, counts)
                continue
            assert self._whole is None, "rows under way are continued through the whole cache"
            if window is None or (time == 1 and counts is None):
                rows = torch.arange(len(k), device=k.device)[:, None]
                each[rows, :, positions if window is None else positions % size] = new
                kept.append(each[:, :, :stop])
            else:
                held[layer] = self._newest(layer, each, new, counts)
                kept.append(torch.cat([each, new.transpose(1, 2)], 2))
        return tuple(kept) if kept else None

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

    def _newest(self, layer: int, each: Tensor, new: Tensor, counts: Tensor | None) -> Tensor:
        """A layer's keys or values, [B, K, S, C], after `new` [B, T, K, C] was read, of which `counts`
        are real."""
        after = self.lengths + (new.shape[1] if counts is None else counts)
        # The column of `new` that each slot then holds; negative: it holds what it did
        column = self.held(layer, after) - self.lengths[:, None]
        index = column.clamp(min=0)[:, None, :, None]
        found = new.transpose(1, 2)
        found = found.gather(2, index.expand(-1, found.shape[1], -1, found.shape[3]))
        if self.longest == 0:
            return found
        return torch.where((column >= 0)[:, None, :, None], found, each)
