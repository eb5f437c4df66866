import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from endonym.core.errors import RecipeError
from endonym.data.sampling import capped, temperature, unimax

SIZES = st.lists(st.floats(1, 1e12), min_size=1, max_size=12).map(np.array)


def test_temperature_by_hand():
    # 16 and 1 at T = 2: 4 and 1
    assert temperature(np.array([16.0, 1.0]), 2).tolist() == [0.8, 0.2]
    assert temperature(np.array([3.0, 1.0]), 1).tolist() == [0.75, 0.25]


@given(SIZES, st.floats(1, 50))
def test_temperature_is_a_flatter_distribution_in_the_same_order(sizes, exponent):
    shares, plain = temperature(sizes, exponent), sizes / sizes.sum()
    assert shares.sum() == pytest.approx(1)
    order = np.argsort(sizes, kind="stable")
    assert (np.diff(shares[order]) >= -1e-12).all()
    # the largest never gains, the smallest never loses
    assert shares[order[-1]] <= plain[order[-1]] + 1e-9
    assert shares[order[0]] >= plain[order[0]] - 1e-9


def test_a_hot_temperature_makes_all_alike():
    assert temperature(np.array([1e12, 1.0]), 1e9).tolist() == pytest.approx([0.5, 0.5])


def test_unimax_by_hand():
    # 100 tokens over 3: the smallest has 10 at most (2 epochs of 5), the others share 90
    assert unimax(np.array([1000.0, 5.0, 50.0]), 100, 2).tolist() == [0.45, 0.1, 0.45]
    # one more is at its cap: 10, 30, and what is left
    assert unimax(np.array([1000.0, 5.0, 15.0]), 100, 2).tolist() == pytest.approx([0.6, 0.1, 0.3])


@given(SIZES, st.floats(0.01, 1), st.floats(0.5, 8))
def test_what_unimax_promises(sizes, filled, epochs):
    budget = filled * epochs * sizes.sum()
    shares = unimax(sizes, budget, epochs)
    taken = shares * budget
    assert shares.sum() == pytest.approx(1)
    assert (taken <= epochs * sizes * (1 + 1e-9)).all()
    order = np.argsort(sizes)
    assert (np.diff(taken[order]) >= -1e-9 * budget).all()
    # as even as the caps allow: whoever is under its cap has as much as anyone
    free = taken < epochs * sizes * (1 - 1e-6)
    if free.any():
        assert taken[free].min() >= taken.max() * (1 - 1e-6)


@given(st.data())
def test_no_cap_is_exceeded_and_the_others_keep_their_ratios(data):
    sizes = data.draw(SIZES)
    shares = np.array([data.draw(st.floats(0.01, 1)) for _ in sizes])
    epochs = np.array([data.draw(st.floats(0.1, 10) | st.just(np.inf)) for _ in sizes])
    most = (sizes * epochs).sum()
    budget = data.draw(st.floats(0.01, 1)) * (most if np.isfinite(most) else sizes.sum() * 5)
    result = capped(shares, sizes, budget, epochs)
    assert result.sum() == pytest.approx(1)
    caps = sizes * epochs / budget
    assert (result <= caps * (1 + 1e-6)).all()
    free = np.flatnonzero(result < caps * (1 - 1e-6))
    wanted = shares / shares.sum()
    assert (result[free] >= wanted[free] * (1 - 1e-6)).all()  # nobody under a cap loses
    ratios = result[free] / wanted[free]
    assert ratios.size == 0 or np.ptp(ratios) <= 1e-6 * ratios.max()


def test_caps_by_hand():
    # 60 of 100 is more than two epochs of 20: 40, and the 20 go 3 : 1 to the others
    shares = capped(
        np.array([0.6, 0.3, 0.1]), np.array([20.0, 500.0, 500.0]), 100, np.array([2.0, 2.0, 2.0])
    )
    assert shares.tolist() == pytest.approx([0.4, 0.45, 0.15])
    # what one hands on puts another over its cap in turn
    shares = capped(
        np.array([0.6, 0.3, 0.1]), np.array([10.0, 35.0, 500.0]), 100, np.array([1.0, 1.0, 1.0])
    )
    assert shares.tolist() == pytest.approx([0.1, 0.35, 0.55])


def test_a_share_of_nothing_stays_nothing():
    result = capped(np.array([1.0, 0.0]), np.array([10.0, 10.0]), 5, np.array([1.0, 1.0]))
    assert result.tolist() == [1, 0]


@given(SIZES, st.floats(0.5, 4), st.floats(1.01, 3))
def test_how_much_there_is_stands_in_the_error(sizes, epochs, times):
    most = epochs * sizes.sum()
    assume(np.isfinite(most))
    for shares in (
        lambda: unimax(sizes, most * times, epochs),
        lambda: capped(sizes, sizes, most * times, np.full(len(sizes), epochs)),
    ):
        with pytest.raises(RecipeError, match="there is less") as error:
            shares()
        assert error.value.got == f"{most:.6g}"


def test_sources_without_tokens_and_temperatures_without_sense():
    with pytest.raises(RecipeError, match="is empty"):
        temperature(np.array([1.0, 0.0]), 2)
    with pytest.raises(RecipeError, match="above 0"):
        temperature(np.array([1.0]), 0)
