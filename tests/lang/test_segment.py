"""Words and sentences as each language counts them."""

import subprocess
import sys

import pytest

from endonym.core.errors import DataError, MachineError
from endonym.lang import segment
from endonym.lang.extras import need, version
from endonym.lang.segment import (
    Counts,
    counts,
    engines,
    graphemes,
    lines,
    segmenter,
    sentences,
    syllables,
    words,
)


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


def test_korean_morphemes_are_asked_for_by_name():
    assert words("나는 학교에 간다.", "ko") == ["나는", "학교에", "간다."]
    assert words("나는 학교에 간다.", "ko", "kiwi") == ["나", "는", "학교", "에", "가", "ᆫ다"]
    with pytest.raises(DataError, match="did you mean 'kiwi'"):
        words("나는", "ko", "kiwii")


def test_sentences_by_the_engine_of_the_pack_or_the_one_given():
    korean = "밥을 먹었어요 정말 맛있었다"  # no mark at all
    assert sentences(korean) == sentences(korean, "ko", "marks") == [korean]
    assert sentences(korean, "ko", "kiwi") == ["밥을 먹었어요", "정말 맛있었다"]
    thai = "วันนี้อากาศดีมากครับ ผมไปเดินเล่นที่สวนสาธารณะ"
    assert sentences(thai, "th", "marks") == [thai]
    assert sentences(thai, "th", "crfcut") == thai.split()
    assert len(sentences(f"{thai}\n{thai}", "th", "crfcut")) == 4  # a line ends a sentence
    with pytest.raises(DataError, match="no engine 'crf' for sentences"):
        sentences(thai, "th", "crf")


def test_a_long_line_is_cut_in_windows():
    text = "วันนี้อากาศดีมากครับ " * 1500
    assert len(text) > segment.LONGEST
    assert "".join(segment._WINDOW.findall(text)) == text
    assert max(map(len, segment._WINDOW.findall(text))) <= segment.LONGEST + 1
    assert all(window.endswith(" ") for window in segment._WINDOW.findall(text))
    assert segment._WINDOW.findall("ก" * (segment.LONGEST + 1)) == ["ก" * segment.LONGEST, "ก"]
    assert len(sentences(text, "th", "crfcut")) == 1500


def test_syllables_are_those_of_the_own_script():
    assert syllables("สวัสดีครับ 25 Python ๒๕ ๆ", "th") == ["สวัส", "ดี", "ครับ"]
    assert syllables("나는 Python 3을 쓴다ㅋㅋ", "ko") == list("나는을쓴다")
    assert syllables("\u1112\u1161\u11ab", "ko") == ["한"]  # conjoining jamo
    with pytest.raises(DataError, match="no syllable counter for 'en'"):
        syllables("cat", "en")


@pytest.mark.parametrize(
    "text, clusters",
    [
        ("น้ำ", ["น้ำ"]),  # sara am belongs to the cluster
        ("ที่นี่", ["ที่", "นี่"]),
        ("เก่า", ["เ", "ก่", "า"]),
        ("한\u1112\u1161\u11ab", ["한", "\u1112\u1161\u11ab"]),
        ("e\u0301a\r\n", ["e\u0301", "a", "\r\n"]),
        ("👨\u200d👩\u200d👧🇹🇭", ["👨\u200d👩\u200d👧", "🇹🇭"]),
        ("", []),
    ],
)
def test_graphemes_are_what_a_reader_counts(text, clusters):
    assert graphemes(text) == clusters


def test_counts():
    assert counts("แมวกินปลา 2 ตัว\nน้ำ", "th") == Counts(6, 2, 5, 15, 19)
    assert counts("It is. Done.", "en") == Counts(3, 2, None, 12, 12)
    assert counts("ສະບາຍດີ", "lo") == Counts(None, 1, None, 6, 7)
    assert counts("", "th") == Counts(0, 0, 0, 0, 0)


def test_engines_name_their_versions():
    thai = engines("th")
    assert thai["words"].startswith("newmm (nlpo3 ") and "dictionary of pythainlp" in thai["words"]
    assert thai["syllables"].startswith("han_solo (pythainlp ")
    assert engines("ko")["words"] == "spaces"
    assert engines("lo")["words"] == "none"
    assert set(thai) == {"words", "sentences", "syllables", "graphemes"}


def test_a_missing_extra_says_what_to_install():
    with pytest.raises(MachineError, match="no_such_engine is not installed") as caught:
        need("no_such_engine.part", "ko", "Korean morphemes")
    assert caught.value.do == "pip install 'endonym[ko]'"
    assert version("no-such-engine", "th").endswith("pip install 'endonym[th]'")


def test_languages_load_nothing_before_a_text_is_cut():
    code = (
        "import sys, endonym.lang.segment, endonym.lang.script, endonym.lang.identify\n"
        "import endonym.lang.normalize\n"
        "endonym.lang.segment.words('a b', 'en')\n"
        "endonym.lang.identify.identify('ไทย')\n"
        "heavy = {'pythainlp', 'nlpo3', 'kiwipiepy', 'py3langid', 'pycrfsuite', 'torch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_without_its_libraries_a_language_says_which():
    """In a process where the extras cannot be imported, counting is an error with the remedy."""
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('nlpo3', 'pycrfsuite', 'kiwipiepy'))\n"
        "from endonym.core.errors import MachineError\n"
        "from endonym.lang.segment import sentences, syllables, words\n"
        "calls = [lambda: words('ไทย', 'th'), lambda: syllables('ไทย', 'th'),\n"
        "         lambda: sentences('ไทย', 'th', 'crfcut'), lambda: sentences('밥', 'ko', 'kiwi')]\n"
        "for call in calls:\n"
        "    try:\n"
        "        call()\n"
        "    except MachineError as error:\n"
        "        print(error.do)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    wanted = ["pip install 'endonym[th]'"] * 3 + ["pip install 'endonym[ko]'"]
    assert result.stdout.splitlines() == wanted, result.stderr
