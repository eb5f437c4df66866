import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endonym.data.threshold import passing


@pytest.mark.parametrize("top", [0.5, 0.35])
def test_the_top_share_of_each_language(top):
    """METHODS 9.3: 50 % and 35 %, within 1 %, of scores that lie otherwise in each language."""
    rng = np.random.default_rng(0)
    score = np.concatenate(
        [rng.normal(2.5, 1, 4000), rng.beta(2, 5, 3000), rng.exponential(1, 2000) - 4]
    ).astype(np.float32)
    language = np.repeat([0, 1, 2], [4000, 3000, 2000])
    mixed = rng.permutation(len(score))
    score, language = score[mixed], language[mixed]
    keep = passing(score, language, top=top)
    for number in range(3):
        here = language == number
        assert keep[here].mean() == pytest.approx(top, abs=0.01)
        assert score[here & keep].min() >= score[here & ~keep].max()
    # all together the language with the lowest scores would lose nearly everything
    assert passing(score, np.zeros_like(language), top=top)[language == 2].mean() < 0.2


@pytest.mark.parametrize("top", [0.5, 0.35])
def test_ties_do_not_change_the_share_and_have_no_order(top):
    score = np.random.default_rng(1).integers(0, 6, 6000).astype(np.float32)
    keep = passing(score, np.zeros(6000, int), top=top)
    assert keep.sum() == round(6000 * top)
    border = score[keep].min()
    assert not keep[score < border].any() and keep[score > border].all()
    tied = np.flatnonzero(score == border)
    kept = tied[keep[tied]]
    # kept from the beginning and the end alike
    assert abs(np.mean(kept < 3000) - np.mean(tied < 3000)) < 0.1


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0, np.nan]), st.integers(0, 2)), max_size=40),
    st.floats(0.05, 1),
)
def test_any_scores(rows, top):
    score = np.array([row[0] for row in rows], np.float32)
    group = np.array([row[1] for row in rows], int)
    keep = passing(score, group, top=top)
    for number in range(3):
        here = (group == number) & ~np.isnan(score)
        assert keep[here].sum() == np.rint(top * here.sum())
    assert not keep[np.isnan(score)].any()
    assert (
        passing(score, group, top=top, missing=True).tolist() == (keep | np.isnan(score)).tolist()
    )


def test_bounds_and_shares_each_hold_on_their_own():
    score = np.array([0, 1, 2, 3, 4, np.nan], np.float32)
    group = np.zeros(6, int)
    assert passing(score, group, at_least=1, at_most=3).tolist() == [0, 1, 1, 1, 0, 0]
    # the best 40 % of five are 3 and 4, of which 3 is not above the bound
    assert passing(score, group, top=0.4, at_most=3).tolist() == [0, 0, 0, 1, 0, 0]
    # a bound is compared in the scores' own precision
    assert passing(np.array([0.88], np.float32), group[:1], at_least=0.88).tolist() == [1]
