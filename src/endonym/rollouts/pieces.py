"""Answers and texts as packed rows to learn from: several in a row, blind to one another.

    pieces -> a fit -> PackedPieces -> Rows     a piece: the ids of one sequence, and what is known of each
                                                prediction

Input-aligned: a sequence's token n is predicted at the place of its token n - 1, the first token of an
answer at the last of its prompt; the last token is only a label.

Shapes: L predictions of a piece (it has L + 1 ids), A of its answer, B rows, T time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from endonym.data.loader import stretch_of
from endonym.data.pack import Packing, best_fit
from endonym.methods.batch import Rows
from endonym.rollouts.record import Rollout

STEP = 8
"""Widths of rows are multiples of it."""

NARROW = 512
"""With the least padding, rows of shorter pieces are up to so wide."""

WIDTHS = 16
"""How many widths are tried for them."""


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
    others = {name: getattr(rollout, column) for name, column in columns.items()}
    plain = answered(
        rollout.prompt, rollout.tokens, rollout.mask, sampled=rollout.logprobs, **others
    )
    drawn = plain.weights
    extra = {
        "advantage": drawn * np.float32(rollout.advantage),
        "share": drawn * np.float32(share),
    }
    return Piece(plain.ids, drawn * np.float32(weight), extra | plain.extra)


def answered(
    prompt: Sequence[int],
    answer: Sequence[int],
    weights: float | Sequence[float],
    **extra: float | Sequence[float],
) -> Piece:
    """A prompt with its answer, whose tokens have these weights and further numbers: one for all of them, or
    one for each, [A]. Those of the prompt have none."""
    ids = np.concatenate([np.asarray(each, np.int64) for each in (prompt, answer)])

    def placed(values: float | Sequence[float]) -> np.ndarray:
        found = np.zeros(len(ids) - 1, np.float32)
        found[len(prompt) - 1 :] = values
        return found

    return Piece(ids, placed(weights), {name: placed(each) for name, each in extra.items()})


@dataclass(frozen=True)
class Place:
    """Where predictions lie: `length` of them in row `line`, from column `first` on."""

    line: int
    first: int
    length: int

    @property
    def slice(self) -> tuple[int, slice]:
        """Their index in a [B, T, ...] tensor."""
        return self.line, slice(self.first, self.first + self.length)

    def last(self, count: int) -> "Place":
        """The last `count` of them: where a piece's answer of so many tokens is predicted."""
        return Place(self.line, self.first + self.length - count, count)


Fit = Callable[[np.ndarray, int, int], tuple[Packing, int, int]]
"""(lengths of pieces, row_length, parts) -> what lies in which row, how many rows, their width. The number
of rows is a multiple of parts, by empty ones at the end."""


class PackedPieces:
    """Pieces in rows, a function of the pieces alone.

    rows, width: B and T; places: of each piece all its predictions
    always: extra numbers that rows have, 0, also where no piece has them
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        row_length: int,
        parts: int = 1,
        *,
        fit: Fit | None = None,
        always: Sequence[str] = (),
    ):
        self.pieces, self._always = list(pieces), always
        lengths = np.array([len(each) for each in self.pieces], np.int64)
        packing, self.rows, self.width = (fit or fewest_rows)(lengths, row_length, parts)
        self.places = [Place(0, 0, 0)] * len(self.pieces)
        self._segments = [0] * len(self.pieces)
        for line in range(len(packing)):
            at = 0
            for segment, number in enumerate(packing.row(line).tolist(), start=1):
                self.places[number] = Place(line, at, len(self.pieces[number]))
                self._segments[number] = segment
                at += len(self.pieces[number])

    def part(self, part: tuple[int, int] = (0, 1)) -> Rows:
        """Part r of n of the rows, as wide as the whole."""
        mine, shape = stretch_of(self.rows, part), (self.rows, self.width)
        names = dict.fromkeys(self._always, np.dtype(np.float32))
        names |= {name: each.dtype for one in self.pieces for name, each in one.extra.items()}
        extra = {name: np.zeros(shape, dtype) for name, dtype in names.items()}
        tokens, labels, segments, positions = (np.zeros(shape, np.int64) for _ in range(4))
        weights = np.zeros(shape, np.float32)
        for one, place, segment in zip(self.pieces, self.places, self._segments, strict=True):
            here = place.slice
            tokens[here], labels[here] = one.ids[:-1], one.ids[1:]
            weights[here], segments[here] = one.weights, segment
            positions[here] = np.arange(len(one))
            for name, values in one.extra.items():
                extra[name][here] = values
        plain = (tokens, labels, weights, segments, positions)
        return Rows(
            *(torch.from_numpy(each[mine]) for each in plain),
            extra={name: torch.from_numpy(each[mine]) for name, each in extra.items()},
        )

    def inside(self, part: tuple[int, int]) -> list[tuple[int, Place]]:
        """The pieces that lie in part r of n of the rows, by number, and where in that part."""
        mine = stretch_of(self.rows, part)
        return [
            (number, Place(place.line - mine.start, place.first, place.length))
            for number, place in enumerate(self.places)
            if mine.start <= place.line < mine.stop
        ]

    def unpacked(self, values: Tensor) -> list[np.ndarray]:
        """Of each piece its stretch [L] of what was found for every place of all rows, [B, T]."""
        table = values.numpy()
        return [table[place.slice] for place in self.places]


def spread(rows: Rows, places: Sequence[Place], values: Sequence[Tensor]) -> Tensor:
    """[B, T, ...]: values one for each prediction of their place; 0 elsewhere."""
    found = values[0].new_zeros(*rows.tokens.shape, *values[0].shape[1:])
    for place, value in zip(places, values, strict=True):
        found[place.slice] = value
    return found


def fewest_rows(lengths: np.ndarray, row_length: int, parts: int) -> tuple[Packing, int, int]:
    """As few rows as row_length allows, as narrow as so many rows can be. A piece longer than row_length
    makes all rows as long as it is."""
    widest = -(-int(max(row_length, lengths.max(initial=1))) // STEP)
    packing = best_fit(lengths, widest * STEP)
    rows = max(1, -(-len(packing) // parts)) * parts
    # What so many rows must hold in any case, in steps; from there on the first width that will do
    least = -(-int(max(lengths.sum() // rows, lengths.max(initial=1))) // STEP)
    while least < widest:
        middle = (least + widest) // 2
        narrower = best_fit(lengths, middle * STEP)
        if len(narrower) <= rows:
            packing, widest = narrower, middle
        else:
            least = middle + 1
    return packing, rows, widest * STEP


def least_padding(lengths: np.ndarray, row_length: int, parts: int) -> tuple[Packing, int, int]:
    """Rows as wide as the longest piece, or, of pieces shorter than NARROW, of several widths up to it the
    one with the least padding, the narrowest of equals. No piece may be longer than row_length."""
    longest = int(lengths.max(initial=1))
    assert longest <= row_length, f"a piece of {longest} predictions in rows of {row_length}"
    widest = min(row_length, max(longest, NARROW))
    tried = np.linspace(longest, widest, WIDTHS if widest > longest else 1).astype(np.int64)
    found = []
    for packing in (best_fit(lengths, int(width)) for width in np.unique(tried)):
        used = max((int(lengths[packing.row(n)].sum()) for n in range(len(packing))), default=1)
        rows = -(-max(len(packing), 1) // parts) * parts
        found.append((packing, rows, min(-(-used // STEP) * STEP, max(row_length, STEP))))
    return min(found, key=lambda one: (one[1] * one[2], one[2]))
