import numpy as np
import pytest
from hypothesis import given, settings
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


def test_the_order_of_a_seed_stays_from_version_to_version():
    # a run that was begun goes on: these are what the first version drew
    source, row = Mixture.of([10, 300, 45], [0.67, 0.25, 0.08], 7).at(
        np.array([0, 1, 2, 99, 12345])
    )
    assert list(zip(source.tolist(), row.tolist())) == [(0, 2), (0, 1), (2, 2), (0, 3), (1, 237)]


@given(SIZES, st.integers(0, 500), st.booleans(), st.data())
def test_times_counts_each_row(sizes, slots, fine, data):
    weights = data.draw(st.lists(st.floats(0.05, 1), min_size=len(sizes), max_size=len(sizes)))
    after = data.draw(st.lists(st.integers(0, 90), min_size=len(sizes), max_size=len(sizes)))
    mixture = Mixture.of(sizes, weights, 2, after=after, fine=fine)
    source, row = mixture.at(np.arange(slots))
    for number, times in enumerate(mixture.times(slots)):
        drawn = np.bincount(row[source == number], minlength=sizes[number])
        assert times.tolist() == drawn.tolist()


def test_what_was_drawn_before_is_passed_over():
    whole = Mixture.of([40, 30], [0.5, 0.5], 1, keys=[7, 8])
    source, row = whole.at(np.arange(200))
    rest = Mixture.of([30, 40], [0.9, 0.1], 1, keys=[8, 7], after=[25, 13])
    source_after, row_after = rest.at(np.arange(50))
    for number, (other, done) in enumerate([(1, 25), (0, 13)]):
        order = row[source == other].tolist()
        drawn = row_after[source_after == number].tolist()
        assert drawn == order[done : done + len(drawn)] and drawn


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=8), st.integers(0, 5))
def test_a_fine_mixture_keeps_its_shares_in_every_stretch(weights, seed):
    mixture = Mixture.of([50] * len(weights), weights, seed, fine=True)
    shares = np.array(weights) / np.sum(weights)
    exact = np.array(mixture.counts) / mixture.block
    assert (np.abs(exact - shares) <= np.minimum(0.002, 0.01 * shares)).all()
    source, _ = mixture.at(np.arange(3300))
    for begin in range(0, 2900, 171):
        for length in (5, 40, 100, 400):
            drawn = np.bincount(source[begin : begin + length], minlength=len(weights))
            # A source's slots lie one to each of its equal parts of a block: at either end it is one
            # ahead or behind, and so is each of the others.
            assert (np.abs(drawn - exact * length) <= 2 * (1 + len(weights) * exact) + 1e-9).all()


def test_a_fine_mixture_has_small_sources():
    assert Mixture.of([5, 5], [1.0, 1 / 3000], 0, fine=True).counts[1] > 0
    with pytest.raises(RecipeError, match="too small for blocks of 65536"):
        Mixture.of([5, 5], [1.0, 1e-6], 0, fine=True)
