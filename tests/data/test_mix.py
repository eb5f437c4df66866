import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endonym.core.errors import RecipeError
from endonym.data.mix import Mixture, largest_remainder, permuted

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def test_largest_remainder_by_hand():
    # 7 slots of .5, .3, .2: 3.5, 2.1, 1.4 -> 3, 2, 1, and the seventh to the largest remainder
    assert largest_remainder(np.array([0.5, 0.3, 0.2]), 7).tolist() == [4, 2, 1]


@given(st.integers(1, 3000), st.integers(0, 5), st.integers(0, 5))
def test_each_epoch_is_a_permutation(size, seed, epoch):
    image = permuted(np.arange(size), size, (seed, 1), epoch)
    assert sorted(image.tolist()) == list(range(size))


def test_epochs_and_sources_have_their_own_order():
    orders = [permuted(np.arange(50), 50, (0, s), e).tolist() for s in (0, 1) for e in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@given(SIZES, st.data())
def test_a_slot_is_a_pure_function(sizes, data):
    weights = data.draw(st.lists(st.floats(0.05, 1), min_size=len(sizes), max_size=len(sizes)))
    mixture = Mixture.of(sizes, weights, 7)
    slots = data.draw(st.lists(st.integers(0, 10_000), min_size=1, max_size=30))
    together = list(zip(*(part.tolist() for part in mixture.at(np.array(slots)))))
    alone = [tuple(int(part[0]) for part in mixture.at(np.array([slot]))) for slot in slots]
    assert together == alone


@given(SIZES)
def test_every_row_once_an_epoch(sizes):
    mixture = Mixture.of(sizes, [1.0] * len(sizes), 3)
    source, row = mixture.at(np.arange(mixture.block * max(sizes) * 2))
    for number, size in enumerate(sizes):
        drawn = row[source == number]
        for epoch in range(len(drawn) // size):
            assert sorted(drawn[epoch * size : (epoch + 1) * size].tolist()) == list(range(size))


def test_mixture_and_epochs_are_as_reported():
    mixture = Mixture.of([10, 300, 45], [0.67, 0.25, 0.08], 0)
    assert mixture.counts == (2 * 33 + 1, 25, 8) or mixture.block < 100
    for slots in (1, 37, 1000, 4321):
        source, _ = mixture.at(np.arange(slots))
        drawn = np.bincount(source, minlength=3).tolist()
        assert mixture.drawn(slots) == drawn
        assert mixture.epochs(slots) == [n / size for n, size in zip(drawn, (10, 300, 45))]
    shares = np.array(mixture.drawn(10_000)) / 10_000
    # a block's shares are within 0.002 of the weights, and a cut block adds at most block/slots
    assert np.abs(shares - [0.67, 0.25, 0.08]).max() < 0.002 + mixture.block / 10_000


def test_far_slots_cost_no_more_than_near_ones():
    import time

    mixture = Mixture.of([10**9, 10**6], [0.7, 0.3], 0)

    def seconds(start):
        begin = time.process_time()
        for _ in range(20):
            mixture.at(np.arange(start, start + 64))
        return time.process_time() - begin

    # a position that had to be skipped to would cost 10^15 steps; the factor 50 is for noise alone
    assert seconds(10**15) < 50 * seconds(0) + 0.1


def test_weights_that_cannot_be_kept_are_refused():
    with pytest.raises(RecipeError, match="one weight is needed"):
        Mixture.of([1, 2], [1.0], 0)
    with pytest.raises(RecipeError, match="not all 0"):
        Mixture.of([1, 2], [0.0, 0.0], 0)
    with pytest.raises(RecipeError, match="has a weight but no rows"):
        Mixture.of([1, 0], [0.5, 0.5], 0)
    with pytest.raises(RecipeError, match="too small"):
        Mixture.of([1, 2], [1.0, 1e-5], 0)
    assert Mixture.of([5, 0], [1.0, 0.0], 0).drawn(10) == [10, 0]
