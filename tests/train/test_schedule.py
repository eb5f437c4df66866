"""Learning rates by hand."""

import math

import pytest

from endonym.core.errors import RecipeError
from endonym.train import schedule
from endonym.train.config import TrainConfig


def test_the_warm_up_rises_in_equal_parts_and_starts_above_zero():
    for curve in (schedule.cosine, schedule.linear, schedule.wsd, schedule.constant):
        assert [curve(step, 100, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_cosine_by_hand():
    # 11 steps, no warm-up: the middle is step 5, where cos(pi / 2) = 0
    assert schedule.cosine(0, 11) == 1.0
    assert schedule.cosine(5, 11) == pytest.approx(0.5)
    assert schedule.cosine(10, 11) == pytest.approx(0.0)
    assert schedule.cosine(5, 11, final=0.2) == pytest.approx(0.2 + 0.8 * 0.5)
    assert schedule.cosine(2, 9) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_linear_by_hand():
    assert [schedule.linear(step, 5, final=0.5) for step in range(5)] == [
        1,
        0.875,
        0.75,
        0.625,
        0.5,
    ]


def test_wsd_is_flat_and_then_falls_in_equal_parts_to_the_end():
    # 10 steps, the last 4 of them falling: 1 at step 5, then 3/4, 1/2, 1/4, 0
    rates = [schedule.wsd(step, 10, warmup=2, decay=4) for step in range(10)]
    assert rates == [0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]


def test_lengths_below_one_are_shares():
    assert schedule.length(0.05, 200) == 10
    assert schedule.length(7, 200) == 7
    assert schedule.length(0, 200) == 0


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
def test_every_schedule_stays_between_zero_and_the_highest_rate(name, steps):
    config = TrainConfig(steps=steps, learning_rate=2.0, schedule=name, final_share=0.1)
    rates = [schedule.rate(config, step) for step in range(steps)]
    assert all(0 < rate <= 2.0 for rate in rates)
    if steps >= 10 and name != "constant":  # a tenth of 3 steps rounds to no decay at all
        assert rates[-1] == pytest.approx(0.2)


def test_a_warm_up_longer_than_the_run_is_refused():
    config = TrainConfig(steps=10, learning_rate=1.0, warmup=10)
    with pytest.raises(RecipeError, match="no step at the full rate"):
        schedule.rate(config, 0)
