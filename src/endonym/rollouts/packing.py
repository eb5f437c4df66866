"""Prompts with answers as rows to learn from: several in a row, each blind to the others.

Shapes: B rows, T time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from endonym.data.pack import Packing, best_fit
from endonym.methods.batch import Rows

NARROW = 512
"""Rows of shorter pairs are up to so wide."""

WIDTHS = 16
"""How many widths are tried for them."""


@dataclass(frozen=True)
class Place:
    """Where a prompt with its answer lies: `answer` tokens of the latter are predicted in row `line` from
    column `first` on."""

    line: int
    first: int
    answer: int

    @property
    def slice(self) -> tuple[int, slice]:
        """Index of these predictions in a [B, T, ...] tensor."""
        return self.line, slice(self.first, self.first + self.answer)


def packed(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    weights: Sequence[float],
    row_length: int,
    parts: int = 1,
) -> tuple[Rows, list[Place]]:
    """Rows of (prompt, answer) pairs and the place of each pair, a function of the pairs alone.

    weights: of each token of the pair's answer; all other tokens weigh 0.
    parts: the number of rows is a multiple of this, with empty ones at the end if need be.

    Input-aligned: the first token of an answer is predicted at the last of its prompt, and the last one
    is only a label. Rows are as wide as the longest pair; of pairs shorter than NARROW several widths up to
    it are tried, and the one with the least padding is taken, the narrowest of equals.
    """
    inputs = np.array([len(prompt) + len(answer) - 1 for prompt, answer in pairs], np.int64)
    longest = int(inputs.max(initial=1))
    assert longest <= row_length, f"a pair of {longest} tokens in rows of {row_length}"
    widest = min(row_length, max(longest, NARROW))
    tried = np.linspace(longest, widest, WIDTHS if widest > longest else 1).astype(np.int64)
    found = [best_fit(inputs, int(width)) for width in np.unique(tried)]
    packing, (height, width) = min(
        ((each, _shape(inputs, each, row_length, parts)) for each in found),
        key=lambda one: (one[1][0] * one[1][1], one[1][1]),
    )
    whole = [np.zeros((height, width), np.int64) for _ in range(4)]
    tokens, labels, segments, positions = whole
    worth = np.zeros((height, width), np.float32)
    places: list[Place | None] = [None] * len(pairs)
    for line in range(len(packing)):
        at = 0
        for segment, number in enumerate(packing.row(line).tolist(), start=1):
            prompt, answer = pairs[number]
            ids, here = np.concatenate([prompt, answer]), slice(at, at + inputs[number])
            tokens[line, here], labels[line, here] = ids[:-1], ids[1:]
            segments[line, here], positions[line, here] = segment, np.arange(len(ids) - 1)
            place = Place(line, at + len(prompt) - 1, len(answer))
            worth[place.slice] = weights[number]
            places[number], at = place, here.stop
    parts_ = (tokens, labels, worth, segments, positions)
    return Rows(*map(torch.from_numpy, parts_)), places


def _shape(inputs: np.ndarray, packing: Packing, row_length: int, parts: int) -> tuple[int, int]:
    """(rows, their width) that hold a packing: a multiple of parts, and of 8 where row_length allows."""
    used = [int(inputs[packing.row(line)].sum()) for line in range(len(packing))]
    height = -(-max(len(packing), 1) // parts) * parts
    return height, min(-(-max(used, default=1) // 8) * 8, max(row_length, 8))


def spread(rows: Rows, places: Sequence[Place], values: Sequence[Tensor]) -> Tensor:
    """[B, T, ...]: the values of each pair, one for each token of its answer, where it is predicted; 0
    elsewhere."""
    found = values[0].new_zeros(*rows.tokens.shape, *values[0].shape[1:])
    for place, value in zip(places, values, strict=True):
        found[place.slice] = value
    return found
