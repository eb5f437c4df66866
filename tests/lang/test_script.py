"""Scripts and the Thai-only rule, one crafted text a reason."""

import unicodedata

import pytest

from endonym.lang.normalize import clean, compose, latin_digits
from endonym.lang.pack import pack
from endonym.lang.script import (
    Switches,
    counts,
    foreign_share,
    in_language,
    script_of,
    script_ranges,
    shares,
    switches,
    why_not,
)

IN_THAI = [
    "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย",
    "ใช้ Python เขียนโปรแกรมคำนวณเลข 25 ได้เลยครับ",
    "ราคา 1,250 บาท (ลด 5%) 😊",
    "<think>Let me think in English about this one.</think>คำตอบคือห้า",
    "น้ำ",
    "พื้นที่ 5 ㎡ หรือ ½ ไร่ 100 µm",  # signs and letters without a script
]


@pytest.mark.parametrize("text", IN_THAI)
def test_thai_replies_pass(text):
    assert why_not(text, ["Thai"]) == ""
    assert in_language(text, "th")


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "no letter of the language"),
        ("42", "no letter of the language"),  # the published rule would let these two pass
        ("The capital is Bangkok.", "no letter of the language"),
        ("เมืองหลวงคือ 曼谷", "foreign letters: Hani"),
        ("ครับ 네", "foreign letters: Hang"),
        ("ค่า α เป็นบวก", "foreign letters: Grek"),
        ("กรุงเทพ is the capital of Thailand", "more Latin than own letters"),
        ("ภาษาไทย</think>Sorry, in English", "no letter of the language"),
        ("ໄທ ไทย", "foreign letters: Laoo"),
    ],
)
def test_thai_refusals_by_reason(text, reason):
    assert why_not(text, ["Thai"]) == reason
    assert not in_language(text, "th")


def test_latin_letters_up_to_the_number_of_own_letters():
    # กขค is 3 letters; at 3 Latin letters the rule still holds, at 4 it does not
    assert in_language("กขค abc", "th")
    assert not in_language("กขค abcd", "th")


@pytest.mark.parametrize(
    "text, language, holds",
    [
        ("서울은 대한민국의 수도입니다.", "ko", True),
        ("서울은 首都입니다.", "ko", False),
        ("東京はとうきょうト", "ja", True),
        ("서울", "ja", False),
        ("Bangkok is the capital.", "en", True),
        ("Bangkok คือเมืองหลวง", "en", False),
        ("Hà Nội là thủ đô", "vi", True),
        ("ວຽງຈັນ", "lo", True),
        ("ไทย", "lo", False),
        ("Москва", "ru", True),
    ],
)
def test_the_rule_for_any_pack(text, language, holds):
    assert in_language(text, language) is holds


def test_shares_add_up_and_ignore_digits():
    assert shares("กข ab 12") == {"Latn": 0.5, "Thai": 0.5}
    assert shares("123 !?") == {}
    assert counts("น้ำ") == {"Thai": 3}  # consonant, tone mark, vowel
    assert script_of("ก") == "Thai" and script_of("1") is None and script_of("𐎀") == "Zzzz"


def test_sara_am_is_composed_and_never_split():
    apart, whole = "น\u0e4d\u0e49า", "น้\u0e33"  # nikhahit, tone mark, sara aa
    assert compose(apart) == whole
    assert compose("ท\u0e4dา") == "ทำ"
    assert compose(whole) == whole
    assert unicodedata.normalize("NFKC", whole) != whole  # the trap that NFC avoids
    assert compose("e\u0301") == "é"


def test_clean_and_digits():
    assert clean(" ก\u200bข\u00a0 ค ") == "กข ค"
    assert latin_digits("๑๒๓ ໔໕ ４２") == "123 45 42"


def test_packs_read_and_unknown_languages_say_so():
    from endonym.core.errors import DataError

    assert pack("th").written and pack("th").calendar == "buddhist"
    assert not pack("lo").written and pack("lo").scripts == ["Laoo"]
    assert pack("sr_Latn").scripts == ["Latn"] and pack("sr").scripts == ["Cyrl"]
    assert pack("ko").own_name == "한국어"
    with pytest.raises(DataError, match="CLDR knows no language 'xx'"):
        pack("xx")


def test_script_ranges_are_of_the_own_scripts():
    assert script_ranges("th") == [(0xE00, 0xE7F)]
    assert (0xAC00, 0xD7FF) in script_ranges("ko")
    assert (0x3041, 0x309F) in script_ranges("ja") and (0x4E00, 0x9FFF) in script_ranges("ja")
    assert script_ranges("vi") is None


@pytest.mark.parametrize(
    "text, language, share, with_latin",
    [
        ("กขค", "th", 0, 0),
        ("กขค abc", "th", 0, 1 / 2),
        ("กข αβ abcd", "th", 2 / 8, 6 / 8),
        ("Hmm, English</think>กข 曼谷", "th", 1 / 2, 1 / 2),
        ("서울 首都", "ko", 1 / 2, 1 / 2),  # Hanja is foreign to the pack of Korean
        ("東京はとうきょう", "ja", 0, 0),
        ("Bangkok กข", "en", 2 / 9, 2 / 9),  # Latin is its own
        ("ກຂ ไท", "lo", 1 / 2, 1 / 2),
        ("42 %", "th", 0, 0),
    ],
)
def test_share_of_foreign_letters(text, language, share, with_latin):
    assert foreign_share(text, language) == share
    assert foreign_share(text, language, latin=True) == with_latin


@pytest.mark.parametrize(
    "text, language, count, words",
    [
        ("ใช้ Python 3 ได้", "th", 2, 4),
        ("แมวกินปลา", "th", 0, 3),
        ("I love ไทย and 한국", "en", 3, 5),
        ("나는 Python을 쓴다", "ko", 2, 3),  # inside a word and between two
        ("東京はとうきょうト", "ja", 0, None),  # kanji and kana are one; no words counted
        ("ພາສາ Python", "lo", 1, None),
        ("English</think>คำตอบ", "th", 0, 1),
        ("123", "en", 0, 1),
        ("", "en", 0, 0),
    ],
)
def test_switch_points(text, language, count, words):
    found = switches(text, language)
    assert found == Switches(count, words)
    assert found.rate == (None if words is None else count / words if words else 0.0)
