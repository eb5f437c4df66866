"""Pairs in rows: nothing lost, nothing seen twice, answers where their places say."""

import numpy as np
import pytest
import torch

from endonym.rollouts.packing import NARROW, packed, spread


def pairs(count, longest=40):
    draw = np.random.default_rng(0)
    return [
        (draw.integers(1, 99, draw.integers(1, longest)), draw.integers(1, 99, draw.integers(1, 9)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("row_length", [48, 100, 4096])
def test_every_pair_lies_where_its_place_says(row_length):
    given = pairs(60)
    weights = [0.5 + n for n in range(60)]
    rows, places = packed(given, weights, row_length)
    assert rows.num_tokens == sum(len(p) + len(a) - 1 for p, a in given)
    assert rows.tokens.shape[1] <= min(row_length, NARROW)
    for (prompt, answer), place, weight in zip(given, places, weights):
        assert rows.labels[place.slice].tolist() == answer.tolist()
        assert (rows.weights[place.slice] == weight).all()
        begin = place.first - len(prompt) + 1
        ids = rows.tokens[place.line, begin : place.first + len(answer)]
        assert ids.tolist() == [*prompt, *answer[:-1]]
        assert rows.positions[place.line, begin] == 0
    total = sum(w * len(a) for w, (_, a) in zip(weights, given))
    assert float(rows.weights.sum()) == pytest.approx(total)


def test_parts_and_nothing_at_all():
    rows, places = packed(pairs(3, 5), [1.0] * 3, 64, parts=5)
    assert len(rows) == 5 and {place.line for place in places} <= {0, 1, 2}
    rows, places = packed([], [], 64, parts=2)
    assert rows.tokens.shape == (2, 8) and rows.num_tokens == 0 and not places
    with pytest.raises(AssertionError, match="in rows of 16"):
        packed([(np.ones(15, int), np.ones(3, int))], [1.0], 16)


def test_the_width_is_the_one_with_the_least_padding():
    draw = np.random.default_rng(1)
    given = [(draw.integers(1, 99, n), np.ones(65, np.int64)) for n in draw.integers(10, 60, 16)]
    tokens = sum(len(p) + len(a) - 1 for p, a in given)
    rows, _ = packed(given, [1.0] * 16, 4096)
    assert rows.num_tokens == tokens and rows.tokens.numel() < 1.06 * tokens
    # 512 wide there would be four, a fifth of them padding
    assert -(-tokens // NARROW) * NARROW > 1.15 * tokens
    # shared out among four the least is another
    rows, _ = packed(given, [1.0] * 16, 4096, parts=4)
    assert len(rows) % 4 == 0 and rows.tokens.numel() < 1.15 * tokens


def test_values_go_where_they_are_predicted():
    given = pairs(20)
    rows, places = packed(given, [1.0] * 20, 128)
    values = [torch.full((len(a), 3), float(n + 1)) for n, (_, a) in enumerate(given)]
    found = spread(rows, places, values)
    assert found.shape == (*rows.tokens.shape, 3)
    assert ((found[..., 0] > 0) == (rows.weights > 0)).all()
    assert all((found[place.slice] == n + 1).all() for n, place in enumerate(places))
