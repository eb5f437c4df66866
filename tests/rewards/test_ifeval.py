"""IFEval's 25 types against replies labelled by hand, and its rules of scoring.

ifeval.jsonl: for each type and language four replies of our own that obey and four that do not. Letter
case is asked for in English alone; Thai and Korean have none.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from endonym.core.errors import DataError
from endonym.rewards.constraints import applies, obeys, obeys_loosely, scores
from endonym.rewards.ifeval import IFEVAL, checks_of, count_letter, loose_forms

LINES = Path(__file__).with_name("ifeval.jsonl").read_text(encoding="utf-8").splitlines()
CASES = [tuple(json.loads(line).values()) for line in LINES]
IDS = [f"{name}-{language}" for name, language, *_ in CASES]


@pytest.mark.parametrize("name, language, arguments, good, bad", CASES, ids=IDS)
def test_replies_labelled_by_hand(name, language, arguments, good, bad):
    [check] = checks_of([name], [arguments], language)
    assert [reply for reply in good if not obeys(reply, check)] == []
    assert [reply for reply in bad if obeys(reply, check)] == []
    for nothing in ("", " \n", "\u200b", "<think>" + good[0], "<think>" + good[0] + "</think>"):
        assert not obeys(nothing, check)
    for reply in good:
        assert obeys_loosely(reply, check)


def test_every_type_is_labelled_in_every_language_that_has_it():
    labelled = Counter((name, language) for name, language, *_ in CASES)
    assert set(labelled.values()) == {1}
    cased = {name for name in IFEVAL if name.startswith("change_case:")}
    wanted = {(name, "en") for name in IFEVAL}
    wanted |= {(name, code) for name in set(IFEVAL) - cased for code in ("th", "ko")}
    assert len(IFEVAL) == 25 and set(labelled) == wanted
    assert all(len(good) == len(bad) == 4 for *_, good, bad in CASES)


def test_letter_case_does_not_apply_where_there_is_none():
    for name, arguments in [
        ("english_capital", {}),
        ("english_lowercase", {}),
        ("capital_word_frequency", {"capital_frequency": 1, "capital_relation": "at least"}),
    ]:
        check = {"type": f"change_case:{name}", **arguments}
        assert applies({**check, "language": "en"}) and applies({**check, "language": "mn"})
        assert not applies({**check, "language": "th"})
        assert not applies({**check, "language": "ko"})


def test_columns_become_checks_without_nulls_but_with_zeros():
    kwargs = [{"num_words": 0, "relation": "at least", "keywords": None}, None]
    checks = checks_of(["length_constraints:number_words", "punctuation:no_comma"], kwargs, "en")
    assert checks == [
        {
            "type": "length_constraints:number_words",
            "language": "en",
            "num_words": 0,
            "relation": "at least",
        },
        {"type": "punctuation:no_comma", "language": "en"},
    ]
    # The instruction's own language is what the reply must be in; the row's stands beside it.
    [asked] = checks_of(["language:response_language"], [{"language": "ko"}], "en")
    assert asked["language"] == "ko"
    with pytest.raises(ValueError):
        checks_of(["punctuation:no_comma"], [], "en")
    # Nulls that a table of checks brings along are no arguments either.
    assert obeys("Red", {"type": "punctuation:no_comma", "language": "en", "count": None})


def test_wrong_arguments_are_named():
    with pytest.raises(DataError, match="did you mean 'punctuation:no_comma'"):
        obeys("a", {"type": "punctuation:no_commas", "language": "en"})
    with pytest.raises(DataError, match="wrong arguments"):
        obeys("a", {"type": "length_constraints:number_words", "language": "en"})
    with pytest.raises(DataError, match="unknown relation"):
        obeys(
            "a",
            {
                "type": "length_constraints:number_words",
                "num_words": 1,
                "relation": "over",
                "language": "en",
            },
        )


def test_letters_of_three_scripts():
    assert count_letter("กิน กุ้ง", "ก") == 2
    assert count_letter("กำ", "กำ") == 1  # a cluster of several code points counts as one
    assert count_letter("각 ㄱ", "ㄱ") == 3  # twice in the syllable, once alone
    assert count_letter("깎", "ㄱ") == 0 and count_letter("깎", "ㄲ") == 2


def test_words_are_not_regular_expressions():
    check = {"type": "keywords:existence", "keywords": ["a.c"], "language": "en"}
    assert obeys("a.c", check) and not obeys("abc", check)


def test_json_that_would_break_a_reader_fails():
    check = {"type": "detectable_format:json_format", "language": "en"}
    for reply in (
        "[" * 100_000,
        "[" * 200 + "]" * 200,
        "[" + "9" * 100_000 + "]",
        '{"a": Infinity}',
    ):
        assert not obeys(reply, check)
    assert obeys(json.dumps({"a": [[[]]]}), check)


HUGE = [
    *("[" * 100_000, "<<" * 50_000, "\n" * 100_000 + "a", "*" * 100_000, "* " * 50_000),
    *("{" + " " * 100_000 + "}", " " * 100_000 + "a", "\n-" * 50_000, "a" * 100_000, "1" * 100_000),
    *(
        "P.S." * 25_000,
        "Section 1 " * 10_000,
        "***\n" * 25_000,
        "``` " * 25_000,
        "\u200d" * 100_000,
    ),
]


@pytest.mark.parametrize("name, arguments", [(n, a) for n, code, a, *_ in CASES if code == "en"])
def test_huge_replies_do_not_take_the_square_of_their_length(name, arguments):
    """A pattern that does takes minutes here."""
    [check] = checks_of([name], [arguments], "en")
    for reply in HUGE:
        obeys(reply, check)


def test_the_eight_forms():
    forms = loose_forms("one\n*two*\nthree")
    assert forms[:4] == ["one\n*two*\nthree", "*two*\nthree", "one\n*two*", "*two*"]
    assert forms[4:] == ["one\ntwo\nthree", "two\nthree", "one\ntwo", "two"]
    assert len(loose_forms("")) == 8


QUOTED = {"type": "startend:quotation", "language": "en"}
NO_COMMA = {"type": "punctuation:no_comma", "language": "en"}
CAPITAL = {"type": "change_case:english_capital", "language": "th"}


def test_four_numbers_by_hand():
    judged = [
        ('"Yes"', [QUOTED, NO_COMMA]),  # both
        ('Sure, here:\n"Yes"', [QUOTED, NO_COMMA]),  # strictly none; loosely both, by the last line
        ("No, never", [NO_COMMA]),  # none
        ("ใช่", [CAPITAL]),  # does not apply
    ]
    found = scores(judged)
    assert (found.prompts, found.instructions, found.not_applicable) == (3, 5, 1)
    assert found.prompt_strict == pytest.approx(1 / 3)
    assert found.prompt_loose == pytest.approx(2 / 3)
    assert found.instruction_strict == pytest.approx(2 / 5)
    assert found.instruction_loose == pytest.approx(4 / 5)


def test_loose_is_never_below_strict_and_levels_agree_on_single_instructions():
    judged = [
        (reply, checks_of([name], [arguments], language))
        for name, language, arguments, good, bad in CASES
        for reply in (*good[:1], *bad[:1])
        if not name.startswith("length_constraints:number_sentences")
    ]
    found = scores(judged)
    assert found.prompt_strict == found.instruction_strict == pytest.approx(0.5)
    assert found.prompt_loose == found.instruction_loose >= found.prompt_strict
    nothing = scores([])
    assert (nothing.prompt_strict, nothing.prompts) == (0.0, 0)
