"""Sequences of many lengths in rows of one length, with little padding and no sequence cut in two.

Best fit: the longest sequences are placed first, each into the row where it leaves the least room.
Rows with the same room left are alike, so they are filled a whole group at a time; 10^5 sequences
take well under a second. (Best-fit decreasing needs at most 11/9 of the fewest rows possible plus
one: Johnson, Near-optimal bin packing algorithms, 1973.)
"""

from dataclasses import dataclass

import numpy as np

from endonym.core.errors import DataError


@dataclass(frozen=True)
class Pieces:
    """Parts of stored sequences: the inputs sequence[start : start + length], each [N] int64."""

    sequence: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.length)


@dataclass(frozen=True)
class Packing:
    """Which pieces lie in which row: row r holds order[offsets[r] : offsets[r + 1]], in that order."""

    order: np.ndarray
    offsets: np.ndarray
    row_length: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, number: int) -> np.ndarray:
        return self.order[self.offsets[number] : self.offsets[number + 1]]


def cut(lengths: np.ndarray, row_length: int, *, never_truncate: bool = False) -> Pieces:
    """Pieces of at most `row_length` out of sequences of `lengths` inputs, in order; empty ones give none.

    never_truncate: raise instead of cutting, naming the longest sequence.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if never_truncate and len(lengths) and lengths.max() > row_length:
        raise DataError(
            f"{int((lengths > row_length).sum())} sequences are longer than a row",
            where=f"sequence {int(lengths.argmax())}",
            wanted=f"at most {row_length} tokens",
            got=int(lengths.max()),
            do="choose longer rows, or allow sequences to be cut",
        )
    counts = -(-lengths // row_length)
    sequence = np.repeat(np.arange(len(lengths)), counts)
    first = np.cumsum(counts) - counts
    start = (np.arange(len(sequence)) - first[sequence]) * row_length
    return Pieces(sequence, start, np.minimum(lengths[sequence] - start, row_length))


def best_fit(lengths: np.ndarray, row_length: int) -> Packing:
    """A packing of pieces of `lengths` (each 1 to row_length) into rows; the same for the same input."""
    lengths = np.asarray(lengths, dtype=np.int64)
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= row_length:
        raise DataError(
            "a piece does not fit a row",
            wanted=f"lengths from 1 to {row_length}",
            got=f"{int(lengths.min())} to {int(lengths.max())}",
            do="cut the sequences first",
        )
    longest_first = np.argsort(-lengths, kind="stable")
    row_of = np.empty(len(lengths), dtype=np.int64)
    room: dict[int, np.ndarray] = {}  # rows by the room they have left
    waiting = 0  # bit s is set where room[s] holds rows: the tightest fit is one shift away
    rows = 0
    values, starts = np.unique(-lengths[longest_first], return_index=True)
    ends = np.append(starts[1:], len(lengths))
    for length, begin, end in zip((-values).tolist(), starts.tolist(), ends.tolist()):
        while begin < end:
            fitting = waiting >> length
            if fitting:
                space = length + (fitting & -fitting).bit_length() - 1
                bins = room.pop(space)
                waiting &= ~(1 << space)
            else:
                space = row_length
                fresh = -(-(end - begin) // (row_length // length))
                bins = np.arange(rows, rows + fresh)
                rows += fresh
            each = space // length
            taken = min(end - begin, each * len(bins))
            row_of[longest_first[begin : begin + taken]] = np.repeat(bins, each)[:taken]
            begin += taken
            used = np.full(len(bins), each)
            used[taken // each :] = 0
            if taken % each:
                used[taken // each] = taken % each
            for left in np.unique(space - used * length).tolist():
                if left > 0:
                    alike = bins[space - used * length == left]
                    room[left] = np.concatenate([room[left], alike]) if left in room else alike
                    waiting |= 1 << left
    order = np.argsort(row_of, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=rows))])
    return Packing(order, offsets.astype(np.int64), row_length)


def one_each(number: int, row_length: int) -> Packing:
    """Every piece in a row of its own."""
    return Packing(np.arange(number), np.arange(number + 1), row_length)
