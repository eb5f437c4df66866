import math

import numpy as np
import pytest

from endonym.core.errors import DataError
from endonym.data.importance import Importance


def test_a_score_is_the_mean_log_ratio_of_the_texts_letters():
    # single letters in many numbers: wanted a a a b, ordinary a b b b, k = 1 over m = 2^20
    m = 1 << 20
    model = Importance(["aaab"], ["abbb"], longest=1, buckets=m, smoothing=1.0)
    more, less = math.log(4 / (4 + m)), math.log(2 / (4 + m))
    assert model.score("a") == pytest.approx(more - less)  # counts 3 and 1
    assert model.score("b") == pytest.approx(less - more)
    assert model.score("ab") == pytest.approx(0.0)
    assert model.score("aab") == pytest.approx((more - less) / 3)
    assert model.score("zz") == pytest.approx(0.0)  # in neither


def test_it_is_per_byte_of_utf8():
    model = Importance(["กก"], ["ขข"], longest=1)
    assert model.score("ก") == pytest.approx(model.score("กกกก"))
    assert model.score("ก") == pytest.approx(model.ratios[model.grams("ก")][0] / 3)


def test_n_grams_are_all_stretches_up_to_the_longest():
    model = Importance(["x"], ["y"], longest=3)
    assert len(model.grams("abcde")) == 5 + 4 + 3
    assert len(model.grams("ab")) == 2 + 1
    assert len(model.grams("")) == 0
    assert model.score("") == 0.0
    one, other = model.grams("abc"), model.grams("acb")
    assert set(one[:3]) == set(other[:3]) and not set(one[3:]) & set(other[3:])


def test_layout_and_case_make_no_difference():
    model = Importance(["The  cat\nsat"], ["dogs"])
    assert model.grams("THE CAT sat").tolist() == model.grams(" the\tcat  sat ").tolist()


def test_texts_like_the_wanted_ones_score_higher():
    rng = np.random.default_rng(0)

    def texts(letters, count):
        return ["".join(rng.choice(list(letters), 60)) for _ in range(count)]

    model = Importance(texts("กขคงจฉ", 20), texts("กขคมยร", 20))
    wanted = [model.score(text) for text in texts("กขคงจฉ", 30)]
    ordinary = [model.score(text) for text in texts("กขคมยร", 30)]
    assert min(wanted) > max(ordinary)


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(DataError, match="no text to learn from"):
        Importance([" ", ""], ["a"])
