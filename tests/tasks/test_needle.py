"""Needles: keys apart by split, values that cannot be confused, sentences of the language."""

from random import Random

import pytest

from endonym.lang.script import in_language
from endonym.tasks.needle import document, needles


@pytest.mark.parametrize("language", ["en", "th", "ko", "vi", "km"])
def test_training_and_test_share_no_key(language):
    train = {one.key for one in needles(language, "train", amount=2000)}
    test = {one.key for one in needles(language, "test", amount=2000)}
    assert train and test and not train & test
    assert 0.1 < len(test) / len(train | test) < 0.3


@pytest.mark.parametrize("language", ["en", "th", "ko"])
def test_sentences_are_of_the_language_and_end_where_the_number_stands(language):
    for one in needles(language, "test", amount=20):
        assert in_language(one.statement, language) and in_language(one.question, language)
        asked = one.question[one.question.rindex(one.key) :]
        assert asked + one.answer in one.statement
        assert one.answer == f" {one.value}"


def test_a_language_without_sentences_is_told_plainly():
    [one] = needles("vi", "test", amount=1, digits=3)
    assert one.statement == f"{one.key}: {one.value}" and one.question == f"{one.key}:"


def test_values_have_the_digits_and_differ_in_the_first():
    for digits in (1, 4, 7):
        for one in needles("en", "train", amount=50, digits=digits):
            every = [one.value, *(other.strip() for other in one.others)]
            assert {len(value) for value in every} == {digits}
            assert len({value[0] for value in every}) == 4 and "0" not in {v[0] for v in every}


def test_needles_are_a_function_of_their_arguments():
    assert needles("th", "test", amount=9, seed=3) == needles("th", "test", amount=9, seed=3)
    assert needles("th", "test", amount=9, seed=3) != needles("th", "test", amount=9, seed=4)


def test_no_key_comes_twice_before_all_came():
    made = [one.key for one in needles("en", "test", amount=1000)]
    pool = len(set(made))
    assert len(set(made[:pool])) == pool == len(set(made[pool : 2 * pool]))


def test_a_document_hides_every_needle_before_any_question():
    hidden = needles("en", "train", amount=3)
    haystack = " ".join(f"word{n}" for n in range(200))
    text = document(haystack, hidden, Random(0))
    first_question = min(text.index(one.question) for one in hidden)
    for one in hidden:
        assert text.index(one.statement) < first_question
        assert one.question + one.answer in text
    words = [word for word in text[:first_question].split() if word.startswith("word")]
    assert words == haystack.split(), "the haystack is whole and in order"
