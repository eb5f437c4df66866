"""Learning rates by hand: one curve, curves over spans, by steps and by tokens."""

import math
from itertools import pairwise

import pytest

from endonym.core.errors import RecipeError
from endonym.train.config import Span, TrainConfig
from endonym.train.schedule import Schedule, length


def rates(steps, **settings):
    plain = {"learning_rate": 1.0, "warmup": 0}
    config = TrainConfig(**{"steps": steps, **plain, **settings})
    return [Schedule(config)(step) for step in range(steps)]


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd", "constant"])
def test_the_warm_up_rises_in_equal_parts_and_starts_above_zero(name):
    assert rates(100, schedule=name, warmup=4)[:4] == [0.25, 0.5, 0.75, 1.0]


def test_cosine_by_hand():
    # 11 steps, no warm-up: the middle is step 5, where cos(pi / 2) = 0
    plain = rates(11, schedule="cosine")
    assert (plain[0], plain[5], plain[10]) == pytest.approx((1.0, 0.5, 0.0))
    assert rates(11, schedule="cosine", final_share=0.2)[5] == pytest.approx(0.2 + 0.8 * 0.5)
    assert rates(9, schedule="cosine")[2] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_linear_by_hand():
    assert rates(5, schedule="linear", final_share=0.5) == [1, 0.875, 0.75, 0.625, 0.5]


def test_wsd_is_flat_and_then_falls_in_equal_parts_to_the_end():
    # 10 steps, the last 4 of them falling: 1 at step 5, then 3/4, 1/2, 1/4, 0
    wanted = [0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    assert rates(10, schedule="wsd", warmup=2, decay=4) == wanted


def test_lengths_below_one_are_shares_of_what_is_counted():
    assert length(0.05, ((200, 1),)) == 10
    assert length(7, ((200, 1),)) == 7
    assert length(0, ((200, 1),)) == 0
    # Ten steps of 1 and ten of 9: a tenth of the 100 is the ten small ones, a half 10 + 40 / 9
    assert length(0.1, ((10, 1), (10, 9))) == 10
    assert length(0.5, ((10, 1), (10, 9))) == 14
    assert length(0.0999, ((10, 1), (10, 9))) == 10


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
def test_every_schedule_stays_between_zero_and_the_highest_rate(name, steps):
    found = rates(steps, learning_rate=2.0, warmup=0.05, schedule=name, final_share=0.1)
    assert all(0 < rate <= 2.0 for rate in found)
    if steps >= 10 and name != "constant":  # a tenth of 3 steps rounds to no decay at all
        assert found[-1] == pytest.approx(0.2)


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(RecipeError, match="no step at the full rate"):
        rates(10, warmup=10)


def test_spans_that_ask_for_nothing_do_not_touch_the_curve():
    parts = [Span(steps=n) for n in (3, 7, 10)]
    for name in ("cosine", "linear", "wsd"):
        settings = {"schedule": name, "warmup": 4, "final_share": 0.1}
        assert rates(20, spans=parts, **settings) == rates(20, **settings)


def test_a_span_with_its_own_curve_begins_where_the_one_before_ended():
    # Up to 1 and down to 0.5 over five steps; then from there in two steps to 2, and flat.
    spans = [Span(steps=5), Span(steps=4, learning_rate=2.0, schedule="constant", warmup=2)]
    found = rates(9, schedule="linear", final_share=0.5, spans=spans)
    assert found == [1, 0.875, 0.75, 0.625, 0.5, 1.25, 2, 2, 2]


def test_a_curve_of_its_own_covers_the_spans_after_it_that_ask_for_nothing():
    spans = [Span(steps=2, schedule="constant"), Span(steps=2, schedule="linear"), Span(steps=3)]
    assert rates(7, spans=spans) == [1, 1, 1, 0.75, 0.5, 0.25, 0]


def test_wsd_then_a_decay_is_continuous():
    """A plateau and a last span that only falls, as phases of a curriculum are written."""
    spans = [Span(steps=50, schedule="constant"), Span(steps=30, schedule="linear", warmup=0)]
    found = rates(80, warmup=10, final_share=0.1, spans=spans)
    jumps = [abs(a - b) for a, b in pairwise(found[10:])]
    assert max(jumps) < 0.04 and found[-1] == pytest.approx(0.1)


def test_by_tokens_the_curve_follows_what_was_read():
    # Four steps of 1 token, then four of 4: the last step begins after 4 + 3 x 4 = 16 tokens.
    spans = [Span(steps=4, tokens_per_step=1), Span(steps=4, tokens_per_step=4)]
    found = rates(8, schedule="linear", schedule_by="tokens", spans=spans)
    before = [0, 1, 2, 3, 4, 8, 12, 16]
    assert found == [1 - tokens / 16 for tokens in before]
    # A warm-up of 0.3 of 20 tokens: four small steps and half of a large one, rounded to four.
    risen = rates(8, schedule="constant", schedule_by="tokens", warmup=0.3, spans=spans)
    assert risen == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    # wsd: a decay of 0.4 of them, counted from the end, is two large steps
    fallen = rates(8, schedule="wsd", schedule_by="tokens", decay=0.4, spans=spans)
    assert fallen == [1, 1, 1, 1, 1, 1, 0.5, 0]


def test_by_tokens_with_equal_steps_is_by_steps():
    spans = [Span(steps=30, tokens_per_step=4096), Span(steps=70, tokens_per_step=4096)]
    for name in ("cosine", "linear", "wsd"):
        settings = {"schedule": name, "warmup": 0.07, "decay": 0.2, "spans": spans}
        by_tokens = rates(100, schedule_by="tokens", **settings)
        assert by_tokens == pytest.approx(rates(100, **settings))


def test_after_the_last_step_its_rate_stays():
    schedule = Schedule(TrainConfig(steps=10, learning_rate=1.0, final_share=0.25))
    assert schedule(9) == schedule(10) == schedule(1000) == schedule.final == 0.25


def test_spans_that_do_not_add_up_and_steps_of_unknown_size_are_refused():
    with pytest.raises(RecipeError, match=r"3 \+ 4 = 7"):
        rates(8, spans=[Span(steps=3), Span(steps=4)])
    with pytest.raises(RecipeError, match=r"spans\[1\]\.tokens_per_step"):
        rates(7, schedule_by="tokens", spans=[Span(steps=3, tokens_per_step=8), Span(steps=4)])
    with pytest.raises(RecipeError, match="warmup of the span from step 3"):
        rates(7, spans=[Span(steps=3), Span(steps=4, warmup=4)])
