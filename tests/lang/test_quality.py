"""Measures of a document by hand, and one crafted text a threshold."""

from dataclasses import asdict, replace

import pytest

from endonym.core.errors import DataError
from endonym.lang.pack import Filters, pack
from endonym.lang.quality import measures, refused, stop_words_in


def test_measures_by_hand():
    text = "- The cat sat.\n\nThe dog ran 42 …\n- The cat sat.\n"
    # words: The cat sat The dog ran 42 The cat sat = 10; "-" and "…" hold no letter or digit
    found = asdict(measures(text, "en"))
    assert found["words"] == 10
    assert found["word_length"] == pytest.approx((3 * 9 + 2) / 10)
    assert found["stop_words"] == 1  # the, once
    assert found["own_script"] == 1.0 and found["word_letters"] == 0.9
    assert found["digits"] == pytest.approx(2 / 34)  # 27 letters, 2 digits, 2 dashes, 2 stops, 1 …
    assert found["symbols"] == pytest.approx(1 / 10)
    assert found["bullet_lines"] == pytest.approx(2 / 3)
    assert found["ellipsis_lines"] == pytest.approx(1 / 3)
    assert found["line_ends"] == pytest.approx(2 / 3) and found["short_lines"] == 1.0
    assert found["duplicate_lines"] == pytest.approx(1 / 3)
    assert found["duplicate_line_characters"] == pytest.approx(14 / 44)
    assert found["lines"] == pytest.approx(3 / 10)
    # "The cat" twice is 12 of 29 characters, "The cat sat" twice 18; no 4-gram stands twice
    assert found["top_ngrams"] == pytest.approx((12 / 29, 18 / 29, 0))
    assert found["duplicate_ngrams"] == (0, 0, 0, 0, 0, 0)


def test_repeated_ngrams():
    text = "a b c d e x a b c d e"
    found = measures(text, "en")
    assert found.duplicate_ngrams == pytest.approx((5 / 11, 0, 0, 0, 0, 0))
    # an n-gram that overlaps itself is counted once for each place
    assert measures("a a a a a", "en").top_ngrams == pytest.approx((4 / 5, 0, 0))


def test_an_empty_document_and_one_without_letters():
    empty = measures("", "th")
    assert empty.words == 0 and empty.own_script == 0 and empty.lines == 0
    assert measures("12 34", "en").own_script == 0
    with pytest.raises(DataError, match="no word segmenter for 'lo'"):
        measures("ສະບາຍດີ", "lo")


def test_stop_words_are_whole_words_or_endings():
    assert stop_words_in(["The", "theory"], "en") == {"the"}
    assert stop_words_in(["학교에서", "그리고"], "ko") == {"-에서", "-서", "그리고", "-고"}
    assert stop_words_in(["에서"], "ko") == {"-서"}  # an ending needs a word before it
    assert stop_words_in(["ที่", "กิน"], "th") == {"ที่"}


PROSE = (
    "The harbour lay still in the grey light, and nobody had come down to it since the storm. "
    "We waited there for an hour with our backs against the wall, because the boats that should "
    "have taken us across were on the other side and their owners would not cross before noon. "
    "When the first of them came in at last, it was so full that only two could go."
)


def test_prose_is_kept_and_each_threshold_has_its_text():
    english = pack("en").filters
    sound = measures(PROSE, "en")
    assert refused(sound, english) == []
    cases = {
        "min_words": replace(sound, words=49),
        "max_words": replace(sound, words=100_001),
        "max_word_length": replace(sound, word_length=10.5),
        "min_stop_words": replace(sound, stop_words=1),
        "min_own_script": replace(sound, own_script=0.5),
        "min_word_letters": replace(sound, word_letters=0.5),
        "max_symbols": replace(sound, symbols=0.2),
        "min_line_ends": replace(sound, line_ends=0.1),
        "max_lines": replace(sound, lines=0.4),
        "max_duplicate_lines": replace(sound, duplicate_lines=0.31),
        "max_top_ngrams": replace(sound, top_ngrams=(0.1, 0.19, 0.1)),
        "max_duplicate_ngrams": replace(sound, duplicate_ngrams=(0, 0, 0, 0, 0, 0.11)),
    }
    for reason, document in cases.items():
        assert refused(document, english) == [reason]


def test_what_nobody_has_said_refuses_nothing():
    strange = replace(measures(PROSE, "en"), word_length=99, digits=1, own_script=0, lines=9)
    assert refused(strange, Filters()) == []
    at_the_edge = replace(strange, words=50, duplicate_lines=0.3)  # a threshold itself is kept
    assert refused(at_the_edge, Filters()) == []


def test_another_language_is_refused():
    assert "min_own_script" in refused(measures(PROSE, "th"), pack("th").filters)
    assert "min_stop_words" in refused(measures(PROSE, "ko"), pack("ko").filters)
