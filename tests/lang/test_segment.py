"""Words and sentences as each language counts them."""

import pytest

from endonym.core.errors import DataError
from endonym.lang.segment import lines, segmenter, sentences, words


def test_thai_words_are_dictionary_words_without_spaces():
    assert words("แมวกินปลา 2 ตัว", "th") == ["แมว", "กิน", "ปลา", "2", "ตัว"]


def test_spaced_languages_count_what_stands_between_spaces():
    assert words("나는 학교에 간다.", "ko") == ["나는", "학교에", "간다."]
    assert words("It is — well, done.", "en") == ["It", "is", "well,", "done."]


def test_a_language_without_a_segmenter_is_an_error():
    with pytest.raises(DataError, match="no word segmenter for 'lo'"):
        words("ສະບາຍດີ", "lo")


@pytest.mark.parametrize(
    "text, count",
    [
        ("One. Two! Three?", 3),
        ("Pi is 3.14 today. Yes.", 2),
        ("The U.S. Virgin Islands use the US Dollar. St. Lucia does not.", 2),
        ("첫째 문장입니다. 둘째 문장이에요.", 2),
        ("これは文です。次の文です。", 2),
        ("บรรทัดแรก มีเว้นวรรค\nบรรทัดที่สอง", 2),
        ("", 0),
        ("...", 0),
    ],
)
def test_sentences(text, count):
    assert len(sentences(text)) == count


def test_lines_leave_out_empty_ones():
    assert lines("a\n\n b \n") == ["a", "b"]


@pytest.mark.parametrize(
    "line",
    [
        "แมวกินปลา 2 ตัว  และ  cat\n",
        " เว้นหน้า\tแท็บ\r\n",
        "ราคา 1,250.50 บาท (ลด 5%) 😊",
        "น\u0e4d\u0e49า เ้ื ผิดรูป \u200b",
        "ก" * 500,
        "",
    ],
)
def test_a_segmenter_keeps_every_character(line):
    assert "".join(segmenter("th")(line)) == line


def test_languages_with_spaces_need_no_segmenter():
    assert segmenter("en") is None and segmenter("ko") is None
    assert len(segmenter("th")("แมวกินปลา")) == 3
