"""Rollouts and texts as packed rows: several in a row, blind to one another.

    pieces -> best_fit -> Rows      a piece: the ids of one sequence, and what is known of each prediction

Shapes: L predictions of a piece (it has L + 1 ids), B rows, T time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from endonym.data.loader import stretch_of
from endonym.data.pack import best_fit
from endonym.methods.batch import Rows
from endonym.rollouts.record import Rollout

STEP = 8
"""Widths of rows are multiples of it."""

ALWAYS = ("advantage", "share", "sampled")
"""What rows have also where there is nothing to learn."""


@dataclass(frozen=True)
class Piece:
    """ids [L + 1]; weights [L] of the predictions; extra: further numbers of each, [L], by name."""

    ids: np.ndarray
    weights: np.ndarray
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.weights)


def piece(rollout: Rollout, weight: float, share: float, **columns: str) -> Piece:
    """A rollout whose drawn tokens have this weight and share each; all others none.

    Of its log-probabilities the sampler's are always there; columns: under which name which others.
    """
    ids = np.array(rollout.prompt + rollout.tokens, np.int64)
    begin = len(rollout.prompt) - 1  # the first drawn token is predicted where the prompt ends
    drawn = np.zeros(len(ids) - 1, np.float32)
    drawn[begin:] = rollout.mask
    extra = {
        "advantage": drawn * np.float32(rollout.advantage),
        "share": drawn * np.float32(share),
        "sampled": _placed(rollout.logprobs, begin, drawn),
    }
    for name, others in columns.items():
        extra[name] = _placed(getattr(rollout, others), begin, drawn)
    return Piece(ids, drawn * np.float32(weight), extra)


def _placed(values: Sequence[float], begin: int, like: np.ndarray) -> np.ndarray:
    found = np.zeros_like(like)
    found[begin:] = values
    return found


class PackedPieces:
    """Pieces in rows. A piece longer than row_length makes all rows as long as it is.

    parts: the number of rows is a multiple of it, by empty rows at the end

    There are as few rows as row_length allows, and they are as narrow as so many rows can be.
    """

    def __init__(self, pieces: Sequence[Piece], row_length: int, parts: int = 1):
        self.pieces = list(pieces)
        lengths = np.array([len(each) for each in self.pieces], np.int64)
        widest = -(-int(max(row_length, lengths.max(initial=1))) // STEP)
        self._packing = best_fit(lengths, widest * STEP)
        self.rows = max(1, -(-len(self._packing) // parts)) * parts
        # What so many rows must hold in any case, in steps; from there on the first width that will do
        least = -(-int(max(lengths.sum() // self.rows, lengths.max(initial=1))) // STEP)
        while least < widest:
            middle = (least + widest) // 2
            narrower = best_fit(lengths, middle * STEP)
            if len(narrower) <= self.rows:
                self._packing, widest = narrower, middle
            else:
                least = middle + 1
        self.width = widest * STEP

    def part(self, part: tuple[int, int] = (0, 1)) -> Rows:
        """Part r of n of the rows, as wide as the whole."""
        mine = stretch_of(self.rows, part)
        shape = (self.rows, self.width)
        names = dict.fromkeys(ALWAYS, np.dtype(np.float32))
        names |= {name: each.dtype for one in self.pieces for name, each in one.extra.items()}
        extra = {name: np.zeros(shape, dtype) for name, dtype in names.items()}
        tokens, labels, segments, positions = (np.zeros(shape, np.int64) for _ in range(4))
        weights = np.zeros(shape, np.float32)
        for row, number, here, segment in self._places():
            one = self.pieces[number]
            tokens[row, here], labels[row, here] = one.ids[:-1], one.ids[1:]
            weights[row, here], segments[row, here] = one.weights, segment
            positions[row, here] = np.arange(len(one))
            for name, values in one.extra.items():
                extra[name][row, here] = values
        plain = (tokens, labels, weights, segments, positions)
        return Rows(
            *(torch.from_numpy(each[mine]) for each in plain),
            extra={name: torch.from_numpy(each[mine]) for name, each in extra.items()},
        )

    def unpacked(self, values: Tensor) -> list[np.ndarray]:
        """Of each piece its stretch [L] of what was found for every place of all rows, [B, T]."""
        table, found = values.numpy(), [np.empty(0, np.float32)] * len(self.pieces)
        for row, number, here, _ in self._places():
            found[number] = table[row, here]
        return found

    def _places(self) -> Iterator[tuple[int, int, slice, int]]:
        """(row, piece, columns, segment) of every piece."""
        for row in range(len(self._packing)):
            at = 0
            for segment, number in enumerate(self._packing.row(row).tolist(), start=1):
                length = len(self.pieces[number])
                yield row, number, slice(at, at + length), segment
                at += length
