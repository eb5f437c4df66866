"""Intervals by hand, against published values, and by how often they cover."""

import numpy as np
import pytest

from endonym.core.errors import DataError
from endonym.eval.intervals import bootstrap, paired_difference, ratio, wilson


def test_wilson_against_published_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81/263, 15/148, 0/20, 1/29
    for k, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        found = wilson(k, n)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
        assert found.value == k / n and found.n == n


def test_wilson_at_the_ends():
    assert wilson(0, 5).low == 0.0 and wilson(5, 5).high == 1.0
    assert wilson(5, 5).low == pytest.approx(1 - wilson(0, 5).high)
    for k, n in [(1, 0), (-1, 5), (6, 5)]:
        with pytest.raises(DataError):
            wilson(k, n)


def test_the_bootstrap_is_a_function_of_its_seed():
    values = np.random.default_rng(1).normal(size=50)
    assert bootstrap(values, 3) == bootstrap(values, 3) != bootstrap(values, 4)


def test_the_bootstrap_of_a_mean_is_about_two_standard_errors():
    values = np.random.default_rng(2).normal(5.0, 2.0, size=400)
    found = bootstrap(values, 0)
    error = values.std() / 20
    # 2000 draws place a 2.5 % point to about 0.06 standard errors; 0.25 is four times that
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)
    assert abs(found.bias) < 0.15 * error


def test_the_bootstrap_covers_about_as_often_as_it_says():
    generator = np.random.default_rng(3)
    inside = 0
    for seed in range(200):
        found = bootstrap(generator.exponential(1.0, size=80), seed, draws=400)
        inside += found.low <= 1.0 <= found.high
    assert 0.88 <= inside / 200 <= 0.99  # 0.93 is usual for so skewed a law; se 0.018


def test_a_ratio_weighs_by_size():
    found = ratio([10.0, 1.0], [10.0, 4.0])
    assert found.value == 11 / 14 and found.n == 2
    assert (found.low, found.high) == (0.25, 1.0)  # two documents: both drawn are one, or the other


def test_pairs_cancel_what_makes_items_hard():
    generator = np.random.default_rng(4)
    hard = generator.normal(0, 10, size=100)
    ours, theirs = hard + 1 + generator.normal(0, 1, 100), hard + generator.normal(0, 1, 100)
    found = paired_difference(ours, theirs)
    assert 0 < found.low < 1 < found.high and found.high - found.low < 1
    alone = bootstrap(ours)
    assert alone.high - alone.low > 3
    with pytest.raises(DataError):
        paired_difference([1.0], [1.0, 2.0])


def test_nothing_is_an_error():
    for values in ([], [0.0]):
        with pytest.raises(DataError):
            ratio(values, [0.0] * len(values))
