import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endonym.core.errors import DataError
from endonym.data.pack import best_fit, cut


@given(st.lists(st.integers(1, 20), max_size=60))
def test_every_piece_once_and_no_row_too_long(lengths):
    packing = best_fit(np.array(lengths, dtype=int), 20)
    assert sorted(packing.order.tolist()) == list(range(len(lengths)))
    for row in range(len(packing)):
        inside = packing.row(row)
        assert 0 < sum(lengths[piece] for piece in inside) <= 20


def one_by_one(lengths, row_length):
    """Best fit decreasing as the textbook has it: the tightest row that still has room."""
    room = []
    for length in sorted(lengths, reverse=True):
        fitting = [r for r in range(len(room)) if room[r] >= length]
        if fitting:
            room[min(fitting, key=lambda r: room[r])] -= length
        else:
            room.append(row_length - length)
    return len(room)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=80))
def test_as_few_rows_as_the_textbook_algorithm(lengths):
    assert len(best_fit(np.array(lengths), 30)) == one_by_one(lengths, 30)


def test_by_hand():
    # 7+3, 5+5, 4+4+2: three full rows of ten
    packing = best_fit(np.array([5, 7, 4, 3, 5, 4, 2]), 10)
    assert len(packing) == 3
    assert sorted(sorted([5, 7, 4, 3, 5, 4, 2][p] for p in packing.row(r)) for r in range(3)) == [
        [2, 4, 4],
        [3, 7],
        [5, 5],
    ]


def test_nothing_gives_no_rows():
    assert len(best_fit(np.array([], dtype=int), 8)) == 0


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 12))
def test_cut_pieces_cover_each_sequence_in_order(lengths, row_length):
    pieces = cut(np.array(lengths, dtype=int), row_length)
    covered = [[] for _ in lengths]
    for sequence, start, length in zip(pieces.sequence, pieces.start, pieces.length):
        assert 1 <= length <= row_length
        covered[sequence] += range(start, start + length)
    assert covered == [list(range(length)) for length in lengths]


def test_cutting_can_be_forbidden():
    with pytest.raises(DataError, match="1 sequences are longer than a row") as error:
        cut(np.array([3, 9, 4]), 8, never_truncate=True)
    assert "sequence 1" in str(error.value)
    with pytest.raises(DataError, match="does not fit a row"):
        best_fit(np.array([9]), 8)


def test_a_hundred_thousand_sequences():
    lengths = np.random.default_rng(0).integers(1, 2048, 100_000)
    begin = time.process_time()
    packing = best_fit(lengths, 2048)
    # 0.15 s when measured; the bound only tells linear from quadratic (minutes)
    assert time.process_time() - begin < 5
    assert lengths.sum() / (len(packing) * 2048) > 0.98
