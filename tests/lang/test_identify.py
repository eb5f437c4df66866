"""Scripts decide first; py3langid chooses among the languages of a script."""

import gzip
import json

import pytest

from endonym.lang.identify import Guess, identify, identify_many
from tokenizer.samples import shared

FLORES = shared() / "parallel" / "flores200_dev_en_th_ko.jsonl.gz"


@pytest.mark.parametrize(
    "text, language",
    [
        ("ใช้ Python เขียนโปรแกรมคำนวณ", "th"),
        ("ชอบ Biore Perfect Cleansing Water สูตร OilClear", "th"),  # a fifth of its letters
        ("나는 학교에 간다", "ko"),
        ("ສະບາຍດີ", "lo"),
        ("សួស្តី", "km"),
        ("これは日本語です", "ja"),
        ("東京タワー", "ja"),
        ("Γειά σου Κόσμε", "el"),
    ],
)
def test_a_script_decides(text, language):
    guess = identify(text)
    assert (guess.language, guess.how) == (language, "script")
    assert 0 < guess.probability <= 1


@pytest.mark.parametrize(
    "text, language",
    [
        ("The cat sat on the mat and looked at the moon.", "en"),
        ("The word 한국 stands in an English sentence about names.", "en"),
        ("Xin chào các bạn, hôm nay trời đẹp", "vi"),
        ("Selamat pagi, saya tidak bisa datang karena hujan", "id"),
        ("Сайн байна уу, өнөөдөр цаг агаар сайхан байна", "mn"),
        ("Сегодня хорошая погода, и мы идём гулять", "ru"),
        ("今天天气很好，我们去公园散步吧", "zh"),
        ("你好", "zh"),
    ],
)
def test_py3langid_chooses_among_the_languages_of_the_script(text, language):
    among = frozenset({"zh", "ja"}) if text == "你好" else frozenset()
    guess = identify(text, among)
    assert (guess.language, guess.how) == (language, "py3langid")
    assert 0 < guess.probability <= 1


def test_a_caller_may_say_which_languages_can_occur():
    short = "ok, see you"
    assert identify(short, frozenset({"en", "id"})).language == "en"
    assert identify("ไทย", frozenset({"en"})).language == "th"  # its script decides
    assert identify(short, frozenset({"ru"})) == Guess("und", 0.0, "script")


@pytest.mark.parametrize("text", ["", "123 !?", "👍", "\ua4d0\ua4d1"])
def test_nothing_to_go_by_is_undetermined(text):
    assert identify(text) == Guess("und", 0.0, "script")


def test_the_probability_of_a_script_is_its_share():
    assert identify("กขค abc").probability == 0.5
    assert identify("ก" + "a" * 99).how == "py3langid"


def test_many_are_as_one_by_one():
    texts = ["ไทย", "나는", "good morning everyone", ""]
    assert identify_many(texts) == [identify(text) for text in texts]


@pytest.mark.skipif(not FLORES.is_file(), reason="no shared data (set ENDONYM_SHARED)")
def test_flores_is_told_apart():
    with gzip.open(FLORES, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][:200]
    for language in ("th", "ko", "en"):
        assert {guess.language for guess in identify_many(row[language] for row in rows)} == {
            language
        }
