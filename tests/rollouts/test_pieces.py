"""Pieces in rows: nothing lost, each where it can be found again, and no column that no row needs."""

import numpy as np
import pytest
import torch

from endonym.rollouts.pieces import (
    NARROW,
    STEP,
    PackedPieces,
    Piece,
    answered,
    fewest_rows,
    least_padding,
    piece,
    spread,
)
from endonym.rollouts.record import Rollout


def pieces(lengths):
    """Of so many predictions, ids and weights of their own in each."""
    found, at = [], 1
    for length in lengths:
        ids = np.arange(at, at + length + 1)
        found.append(Piece(ids, np.full(length, at, np.float32), {"share": ids[1:] / 7}))
        at += length + 1
    return found


def answers(count, longest=40):
    """Prompts and answers."""
    draw = np.random.default_rng(0)
    return [
        (draw.integers(1, 99, draw.integers(1, longest)), draw.integers(1, 99, draw.integers(1, 9)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("fit", [fewest_rows, least_padding])
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("lengths", [[], [5], [64], [90], [20, 17, 3, 40, 9], [33] * 8, [1] * 100])
def test_every_piece_lies_whole_in_a_row_and_is_found_there(lengths, parts, fit):
    given = pieces(lengths)
    packed = PackedPieces(given, 64 if fit == fewest_rows else 96, parts, fit=fit)
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
    inside = [packed.inside((r, parts)) for r in range(parts)]
    assert sorted(number for each in inside for number, _ in each) == list(range(len(given)))
    for each, stretch in zip(inside, stretches):
        for number, place in each:
            assert stretch.labels[place.slice].tolist() == given[number].ids[1:].tolist()


def test_rows_may_have_columns_that_no_piece_has():
    rows = PackedPieces([], 64, always=("share",)).part()
    assert rows.extra.keys() == {"share"} and rows.extra["share"].shape == rows.tokens.shape
    assert PackedPieces(pieces([3]), 64, always=("share",)).part().extra["share"].sum() > 0
    assert not PackedPieces([], 64).part().extra


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


@pytest.mark.parametrize("row_length", [48, 100, 4096])
def test_an_answer_is_the_last_of_its_piece_and_alone_has_weight(row_length):
    given = answers(60)
    made = [answered(p, a, 0.5 + n, mine=float(n)) for n, (p, a) in enumerate(given)]
    packed = PackedPieces(made, row_length, fit=least_padding)
    rows = packed.part()
    assert rows.num_tokens == sum(len(p) + len(a) - 1 for p, a in given)
    assert rows.tokens.shape[1] <= min(row_length, NARROW)
    for number, ((prompt, answer), whole) in enumerate(zip(given, packed.places)):
        place = whole.last(len(answer))
        assert rows.labels[place.slice].tolist() == answer.tolist()
        assert (rows.weights[place.slice] == 0.5 + number).all()
        assert (rows.extra["mine"][place.slice] == number).all()
        assert rows.tokens[whole.slice].tolist() == [*prompt, *answer[:-1]]
    total = sum((0.5 + n) * len(a) for n, (_, a) in enumerate(given))
    assert float(rows.weights.sum()) == pytest.approx(total)


def test_with_the_least_padding_parts_and_nothing_at_all():
    def made(given, length, parts):
        pieces = [answered(*each, 1.0) for each in given]
        return PackedPieces(pieces, length, parts, fit=least_padding)

    packed = made(answers(3, 5), 64, 5)
    assert packed.rows == 5 and {place.line for place in packed.places} <= {0, 1, 2}
    rows = made([], 64, 2).part()
    assert rows.tokens.shape == (2, 8) and rows.num_tokens == 0
    with pytest.raises(AssertionError, match="in rows of 16"):
        made([(np.ones(15, int), np.ones(3, int))], 16, 1)


def test_the_width_is_the_one_with_the_least_padding():
    draw = np.random.default_rng(1)
    lengths = draw.integers(10, 60, 16) + 64
    tokens = int(lengths.sum())
    _, rows, width = least_padding(lengths, 4096, 1)
    assert tokens <= rows * width < 1.06 * tokens
    # 512 wide there would be four, a fifth of them padding
    assert -(-tokens // NARROW) * NARROW > 1.15 * tokens
    # shared out among four the least is another
    _, rows, width = least_padding(lengths, 4096, 4)
    assert rows % 4 == 0 and rows * width < 1.15 * tokens


def test_values_go_where_they_are_predicted():
    given = answers(20)
    packed = PackedPieces([answered(*each, 1.0) for each in given], 128, fit=least_padding)
    rows, places = packed.part(), [p.last(len(a)) for p, (_, a) in zip(packed.places, given)]
    values = [torch.full((len(a), 3), float(n + 1)) for n, (_, a) in enumerate(given)]
    found = spread(rows, places, values)
    assert found.shape == (*rows.tokens.shape, 3)
    assert ((found[..., 0] > 0) == (rows.weights > 0)).all()
    assert all((found[place.slice] == n + 1).all() for n, place in enumerate(places))
