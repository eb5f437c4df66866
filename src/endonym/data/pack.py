"""Sequences of many lengths in rows of one length, with little padding and no sequence cut in two.

Best fit: the longest sequences are placed first, each into the row where it leaves the least room.
Rows with the same room left are alike, so they are filled a whole group at a time; 10^6 sequences
take a second or two. (Best-fit decreasing needs at most 11/9 of the fewest rows possible plus
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


def cut(
    lengths: np.ndarray,
    row_length: int,
    *,
    never_truncate: bool = False,
    keep: np.ndarray | None = None,
) -> Pieces:
    """Pieces of at most `row_length` out of sequences of `lengths` inputs, in order; empty ones give none.

    keep: bool, which sequences are taken at all. never_truncate: raise instead of cutting one of
    these, naming the longest sequence.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if keep is not None:
        lengths = np.where(keep, lengths, 0)
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
    waiting = _Spaces(row_length)  # the keys of `room`
    rows = 0
    values, starts = np.unique(-lengths[longest_first], return_index=True)
    ends = np.append(starts[1:], len(lengths))
    for length, begin, end in zip((-values).tolist(), starts.tolist(), ends.tolist()):
        while begin < end:
            space = waiting.smallest(length)
            if space is not None:
                bins = room.pop(space)
                waiting.flip(space)
            else:
                space = row_length
                fresh = -(-(end - begin) // (row_length // length))
                bins = np.arange(rows, rows + fresh)
                rows += fresh
            each = space // length
            taken = min(end - begin, each * len(bins))
            row_of[longest_first[begin : begin + taken]] = np.repeat(bins, each)[:taken]
            begin += taken
            full, rest = divmod(taken, each)  # rows filled up, pieces in the one after them
            for alike, held in (
                (bins[:full], each),
                (bins[full : full + 1], rest),
                (bins[full + 1 :], 0),
            ):
                left = space - held * length
                if not left or not len(alike):
                    continue
                if left in room:
                    room[left] = np.concatenate([room[left], alike])
                else:
                    room[left] = alike
                    waiting.flip(left)
    order = np.argsort(row_of, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=rows))])
    return Packing(order, offsets.astype(np.int64), row_length)


class _Spaces:
    """A set of whole numbers up to `most` that knows its smallest member from any number on.

    Two levels of bits: a single integer of as many bits as a row has tokens would be copied whole by
    each look, which at rows of 10^5 tokens is most of the work.
    """

    WORD = 9  # bits of a word's index: words of 512

    def __init__(self, most: int):
        self.words = [0] * ((most >> self.WORD) + 1)
        self.filled = 0  # bit w is set where words[w] is not 0

    def flip(self, number: int) -> None:
        """Put a number in, or take it out."""
        word = number >> self.WORD
        self.words[word] ^= 1 << (number & ((1 << self.WORD) - 1))
        self.filled = self.filled & ~(1 << word) | bool(self.words[word]) << word

    def smallest(self, least: int) -> int | None:
        word = least >> self.WORD
        inside = self.words[word] >> (least & ((1 << self.WORD) - 1))
        if inside:
            return least + _lowest(inside)
        later = self.filled >> (word + 1)
        if not later:
            return None
        word += 1 + _lowest(later)
        return (word << self.WORD) + _lowest(self.words[word])


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def one_each(number: int, row_length: int) -> Packing:
    """Every piece in a row of its own."""
    return Packing(np.arange(number), np.arange(number + 1), row_length)
