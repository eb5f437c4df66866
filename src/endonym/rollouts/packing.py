"""Prompts with answers as rows to learn from: several in a row, each blind to the others.

Shapes: B rows, T time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from endonym.data.pack import best_fit
from endonym.methods.batch import Rows

NARROWEST = 512
"""Rows are at least so wide where something would lie side by side: shorter ones fill less well."""


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
    is only a label. Rows are as wide as the longest pair, at least NARROWEST where row_length allows.
    """
    inputs = np.array([len(prompt) + len(answer) - 1 for prompt, answer in pairs], np.int64)
    longest = int(inputs.max(initial=1))
    assert longest <= row_length, f"a pair of {longest} tokens in rows of {row_length}"
    packing = best_fit(inputs, min(row_length, max(longest, NARROWEST)))
    used = [int(inputs[packing.row(line)].sum()) for line in range(len(packing))]
    height = -(-max(len(packing), 1) // parts) * parts
    width = min(-(-max(used, default=1) // 8) * 8, max(row_length, 8))
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


def spread(rows: Rows, places: Sequence[Place], values: Sequence[Tensor]) -> Tensor:
    """[B, T, ...]: the values of each pair, one for each token of its answer, where it is predicted; 0
    elsewhere."""
    found = values[0].new_zeros(*rows.tokens.shape, *values[0].shape[1:])
    for place, value in zip(places, values, strict=True):
        found[place.slice] = value
    return found
