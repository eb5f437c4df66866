"""Pieces in rows: each where it can be found again, and no column that no row needs."""

import numpy as np
import pytest
import torch

from endonym.rollouts.pieces import STEP, PackedPieces, Piece, piece
from endonym.rollouts.record import Rollout


def pieces(lengths):
    """Of so many predictions, ids and weights of their own in each."""
    found, at = [], 1
    for length in lengths:
        ids = np.arange(at, at + length + 1)
        found.append(Piece(ids, np.full(length, at, np.float32), {"share": ids[1:] / 7}))
        at += length + 1
    return found


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("lengths", [[], [5], [64], [90], [20, 17, 3, 40, 9], [33] * 8, [1] * 100])
def test_every_piece_lies_whole_in_a_row_and_is_found_there(lengths, parts):
    given = pieces(lengths)
    packed = PackedPieces(given, 64, parts)
    rows = packed.part()
    assert rows.tokens.shape == (packed.rows, packed.width) and packed.rows % parts == 0
    for name, values in (("ids", rows.tokens), ("labels", rows.labels), ("weights", rows.weights)):
        for one, found in zip(given, packed.unpacked(values), strict=True):
            ids = {"ids": one.ids[:-1], "labels": one.ids[1:], "weights": one.weights}
            assert np.array_equal(found, ids[name])
    assert int((rows.segments > 0).sum()) == sum(lengths)
    for row in range(packed.rows):  # a piece's segment begins at position 0 and goes on by ones
        segments, positions = rows.segments[row].tolist(), rows.positions[row].tolist()
        for number in {each for each in segments if each}:
            places = [n for n, each in enumerate(segments) if each == number]
            assert places == list(range(places[0], places[-1] + 1))
            assert [positions[n] for n in places] == list(range(len(places)))
    stretches = [packed.part((r, parts)) for r in range(parts)]
    assert torch.equal(torch.cat([each.tokens for each in stretches]), rows.tokens)


def test_rows_are_as_few_as_may_be_and_then_as_narrow():
    packed = PackedPieces(pieces([30] * 8), 100)  # three in a row of 100: three rows, so 90 wide
    assert (packed.rows, packed.width) == (3, 96)
    assert PackedPieces(pieces([30] * 8), 100, 4).width == 64  # of four rows each needs two
    assert PackedPieces(pieces([10]), 4096).width == 16
    assert PackedPieces([], 4096).width == STEP


def test_only_what_was_drawn_has_weight_share_and_advantage():
    one = Rollout(
        0, 0, "", "", [1, 2, 3], [4, 5, 6, 7], [True, False, False, True],
        [-0.5, 0.0, 0.0, -0.25], "stop", 2, [], advantage=2.0,
    )  # fmt: skip
    found = piece(one, 0.5, 0.125)
    assert found.ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
    # The token 4 is predicted where 3 is read.
    assert found.weights.tolist() == [0, 0, 0.5, 0, 0, 0.5]
    assert found.extra["advantage"].tolist() == [0, 0, 2, 0, 0, 2]
    assert found.extra["share"].tolist() == [0, 0, 0.125, 0, 0, 0.125]
    assert found.extra["sampled"].tolist() == [0, 0, -0.5, 0, 0, -0.25]
