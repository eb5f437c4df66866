"""The reward `constraints`: levels, looseness, what does not apply, padding."""

import pytest

from endonym.core.errors import DataError
from endonym.rewards.constraints import constraints, obeys
from endonym.rewards.padding import is_padding, repetition

QUOTED = {"type": "startend:quotation", "language": "en"}
NO_COMMA = {"type": "punctuation:no_comma", "language": "en"}
CAPITAL_TH = {"type": "change_case:english_capital", "language": "th"}
SHORT = {"type": "words", "count": 3, "relation": "at most", "language": "th"}


def test_levels_and_looseness():
    replies = ['"Yes"', "Yes", 'Sure:\n"Yes"', "<think>x</think>", "Yes"]
    checks = [[QUOTED, NO_COMMA]] * 4 + [None]
    q = [""] * 5
    assert constraints()(q, replies, checks=checks) == [1.0, 0.0, 0.0, 0.0, None]
    by_instruction = constraints(level="instruction")(q, replies, checks=checks)
    assert by_instruction == [1.0, 0.5, 0.5, 0.0, None]
    assert constraints(loose=True)(q, replies, checks=checks) == [1.0, 0.0, 1.0, 0.0, None]
    assert constraints()(["q"], ["a"]) == [None]
    assert constraints().__name__ == "constraints"
    with pytest.raises(DataError, match="did you mean 'instruction'"):
        constraints(level="instructions")


def test_checks_that_do_not_apply_are_left_out():
    reward = constraints(level="instruction")
    checks = [[CAPITAL_TH, SHORT], [CAPITAL_TH]]
    assert reward(["", ""], ["ใช่ครับ", "ใช่ครับ"], checks=checks) == [1.0, None]


def test_repetition_by_hand():
    # a b a b a: aba, bab, aba: 2 of 3
    assert repetition(list("ababa")) == pytest.approx(2 / 3)
    assert repetition(list("ab")) == 1.0 and repetition(list("aaaa")) == 0.5


def test_padding():
    words = {"type": "length_constraints:number_words", "num_words": 6, "relation": "at least"}
    often = {"type": "keywords:frequency", "keyword": "ดี", "frequency": 2, "relation": "at least"}
    for text, language, check in [
        ("good " * 50, "en", words),
        ("one two " * 50, "en", words),
        ("ดีมาก" * 20, "th", words),
        ("좋아요 " * 20, "ko", words),
        ("ល្អ" * 30, "km", words),
    ]:
        assert is_padding(text, [{**check, "language": language}]), text
        if language != "km":
            assert obeys(text, {**check, "language": language})
    assert is_padding("ดี ดี", [{**often, "language": "th"}])
    for text, language in [
        ("We walked to the market, and the market was closed, so we walked home again.", "en"),
        ("อากาศดีมาก และอาหารก็ดี", "th"),
        ("ดี", "th"),
        ("Row, row, row your boat, gently down the stream.", "en"),
    ]:
        assert not is_padding(text, [{**words, "language": language}]), text
    assert not is_padding("อากาศดี อาหารดี", [{**often, "language": "th"}])
