"""Paired differences: the value by hand, what pairing and seeds do to the interval, and coverage."""

import numpy as np
import pytest

from endonym.core.errors import DataError
from endonym.eval.paired import difference, seeds_apart


def test_by_hand():
    ours = [[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    theirs = [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    found = difference(ours, theirs)
    assert found.value == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert found.n == 3
    assert seeds_apart(ours, theirs) == pytest.approx([1 / 3, 2 / 3])


def test_ratios_are_of_sums():
    """Bits per byte: a long document weighs more than a short one."""
    ours, theirs = [[(8.0, 10), (1.0, 1)]], [[(16.0, 10), (1.0, 1)]]
    assert difference(ours, theirs).value == pytest.approx(9 / 11 - 17 / 11)
    nothing = [[(0.0, 0), (0.5, 1)]]  # an empty reply beside one that is not
    assert difference(nothing, [[(0.3, 1), (0.5, 1)]]).value == pytest.approx(0.5 - 0.4)


def test_what_two_share_cancels():
    generator = np.random.default_rng(0)
    hard = generator.random((1, 200))
    ours, theirs = hard + 0.1, hard
    found = difference(ours.tolist(), theirs.tolist())
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_seeds_that_disagree_widen_it():
    theirs = [[0.0] * 50] * 3
    agree = difference([[0.2] * 50] * 3, theirs)
    apart = difference([[0.0] * 50, [0.2] * 50, [0.4] * 50], theirs)
    assert agree.high - agree.low == pytest.approx(0)
    assert (apart.low, apart.high) == pytest.approx((0.0, 0.4))


def test_the_interval_holds_what_it_says():
    """Over 300 draws of 100 items and 12 seeds from a known truth, about 95 in 100 contain it."""
    generator = np.random.default_rng(1)
    inside = 0
    for number in range(300):
        items, runs = generator.normal(0, 0.3, 100), generator.normal(0, 0.05, 12)
        values = 0.1 + items[None] + runs[:, None] + generator.normal(0, 0.2, (12, 100))
        found = difference(values.tolist(), np.zeros((12, 100)).tolist(), number, draws=400)
        inside += found.low <= 0.1 <= found.high
    assert 0.90 <= inside / 300 <= 0.99


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ([[1.0, 0.0]], [[1.0]], "same items"),
        ([[1.0], [0.0]], [[1.0]], "as many seeds"),
        ([[1.0, 0.0], [1.0]], [[1.0, 0.0]] * 2, "seeds of one figure"),
        ([[]], [[]], "seeds of one figure"),
        ([[(0.0, 0)]], [[(1.0, 1)]], "no difference"),
    ],
)
def test_refused(ours, theirs, words):
    with pytest.raises(DataError, match=words):
        difference(ours, theirs)
