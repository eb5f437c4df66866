"""Rules of spelling: what looks the same becomes the same, what is seen stays; twice is once."""

import gzip
import json
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from endonym.core.errors import DataError
from endonym.lang.normalize import RULES, apply, clean, compose, normalize
from endonym.lang.pack import pack, packs
from tokenizer.samples import shared

PAIRS = shared() / "preference" / "th" / "wangchanglm_pairs.jsonl.gz"


@pytest.mark.parametrize(
    "typed, wanted",
    [
        ("น\u0e4d\u0e49า", "น้\u0e33"),  # nikhahit, tone, sara aa
        ("น\u0e49\u0e4dา", "น้\u0e33"),  # tone, nikhahit, sara aa
        ("น\u0e33\u0e49", "น้\u0e33"),  # the tone after sara am
        ("ท\u0e4dา", "ท\u0e33"),
        ("ค\u0e48\u0e48ะ", "ค่ะ"),  # a tone twice
        ("คะ\u0e48", "ค่ะ"),  # the tone after the vowel on the line
        ("ก\u0e48\u0e34น", "ก\u0e34\u0e48น"),  # tone before the vowel above
        ("ร\u0e39\u0e49\u0e39", "ร\u0e39\u0e49"),  # a vowel below twice
        ("สิทธ\u0e4c\u0e34", "สิทธ\u0e34\u0e4c"),  # silencer before its vowel
        ("กา\u0e48า\u0e48", "ก\u0e48าา"),
        ("เเปลก", "แปลก"),  # sara e twice
        ("ก\u200bา\ufeffร", "การ"),
        ("ก\u00a0ข\u202fค", "ก ข ค"),
        ("ＡＢＣ１２３（５％）", "ABC123(5%)"),
        ("ไทย\u200dแลนด์", "ไทยแลนด์"),
        ("e\u0301", "é"),
    ],
)
def test_thai_is_spelt_one_way(typed, wanted):
    assert normalize(typed, "th") == wanted


@pytest.mark.parametrize(
    "text",
    [
        "น้ำ ค่ะ สิทธิ์ ฤๅ ก็ ผู้ เกาะ เอ๊ะ",
        "มากกกก นานาาา ๆ ฯลฯ",  # drawn out: a reader sees it
        "เเเปลก",  # three: nobody can say
        "ก\u0e48\u0e49",  # two tones: nobody can say
        "x² H₂O ① ㎡ ½ ﬁ Å µ",  # what NFKC destroys
        "๑๒๓",
        "  x = 1\n\n\n    y\t= 2  ",
        "👨\u200d👩\u200d👧 ❤\ufe0f",  # joiners of emoji
        "می\u200cخواهم",  # joiners of Persian
    ],
)
def test_what_is_seen_stays(text):
    assert normalize(text, "th") == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    "typed, wanted",
    [
        ("\u1112\u1161\u11ab\u1100\u1173\u11af", "한글"),  # conjoining jamo
        ("\uac00\u11ab", "간"),  # a syllable and a final
        ("\u110f\u110f\u110f", "ㅋㅋㅋ"),  # leads alone
        ("영화\u110f\u110f", "영화ㅋㅋ"),
        ("\u1172\u1172", "ㅠㅠ"),
        ("ﾡￂ", "ㄱㅏ"),  # half-width: the letters of the keyboard, never joined
        ("ㅠㅁㅠ ㅡㅇㅡ ㅎㅎ ㄷㅏ름", "ㅠㅁㅠ ㅡㅇㅡ ㅎㅎ ㄷㅏ름"),  # faces and slips are seen
        ("\u1112\u119e\u11ab글", "\u1112\u119e\u11ab글"),  # old Hangul
        ("ＫＢＳ　１２３￦", "KBS 123₩"),
        ("김\u3164이", "김 이"),  # the blank letter
    ],
)
def test_hangul_is_spelt_one_way(typed, wanted):
    assert normalize(typed, "ko") == wanted


def test_lao_is_ordered_like_thai():
    assert apply("ນ\u0ecd\u0ec9\u0eb2", ["lao_order", "lao_am"]) == "ນ\u0ec9\u0eb3"
    assert apply("ກ\u0ec8\u0eb4ນ", ["lao_order"]) == "ກ\u0eb4\u0ec8ນ"
    assert apply("ເເກ", ["lao_order"]) == "ແກ"
    assert (
        apply("ປ\u0ec8\u0ebc", ["lao_order"]) == "ປ\u0ebc\u0ec8"
    )  # the consonant below comes first


def test_digits_are_an_option():
    assert apply("๒๕๖๗ ໔ ４２ x²", ["digits"]) == "2567 4 42 x²"
    assert "digits" not in pack("th").normalize


def test_an_unknown_rule_is_named():
    with pytest.raises(DataError, match="did you mean 'thai_order'"):
        apply("ก", ["thai_ordr"])


def test_every_pack_names_rules_that_exist():
    for language in packs():
        assert set(pack(language).normalize) <= set(RULES), language


LETTERS = (
    "กขนฤเแา\u0e33ะๅ\u0e31\u0e34\u0e37\u0e38\u0e39\u0e3a\u0e47\u0e48\u0e49\u0e4c\u0e4d\u0e4e"
    "ກເ\u0eb2\u0eb3\u0eb4\u0eb8\u0eba\u0ebb\u0ebc\u0ec8\u0ec9\u0ecc\u0ecd"
    "\u1100\u110f\u1161\u119e\u11a8\u11c2가각ㄱㅏ\u3164\uffa1\uffc2\uffa0ｶ\uff9eＡ１，\u3099"
    "aé\u0301 \u00a0\u200b\u200c\u200d\u200e\u2028\u00ad\ufeff\n١๑👩\u05d0\u0628"
)
MIXED = st.one_of(st.text(LETTERS, max_size=12), st.text(max_size=20))


@settings(max_examples=600)
@given(MIXED, st.sets(st.sampled_from(sorted(RULES))))
# Marks of three scripts on one letter: NFC moves what a joiner stood beside.
@example("\u0ecc\u0e48\u0ec8\u200e\uff9e\u200e", set(RULES))
@example("\u0e38\uff9e\u3099\u0e34\u0ec0\u3099\u0ec9", {"thai_order", "width", "lao_am"})
def test_twice_is_once_and_nfc_by_any_set_of_rules(text, names):
    once = apply(text, sorted(names))
    assert apply(once, sorted(names)) == once
    assert unicodedata.is_normalized("NFC", once)


@settings(max_examples=300)
@given(MIXED, st.sampled_from(sorted(RULES)))
def test_each_rule_is_idempotent_on_composed_text(text, name):
    rule, text = RULES[name], unicodedata.normalize("NFC", text)
    assert rule(rule(text)) == rule(text)


@settings(max_examples=300)
@given(MIXED)
def test_spelling_does_not_depend_on_the_unicode_form(text):
    decomposed = unicodedata.normalize("NFD", text)
    assert normalize(text, "th") == normalize(decomposed, "th")
    assert normalize(text, "ko") == normalize(decomposed, "ko")


@given(st.text(LETTERS))
def test_thai_order_keeps_the_letters(text):
    """Only repeated signs go; no sign comes that was not there, but sara ae."""
    after = RULES["thai_order"](text)
    assert set(after) <= set(text) | {"แ"}
    assert set(text) - set(after) <= {"เ"}


def test_old_functions_stay_as_they_were():
    assert compose("น\u0e4d\u0e49า") == "น้\u0e33" and compose("คะ\u0e48") == "คะ\u0e48"
    assert clean(" ก\u200bข\u00a0 ค ") == "กข ค"


@pytest.mark.skipif(not PAIRS.is_file(), reason="no shared data (set ENDONYM_SHARED)")
def test_sara_am_in_two_parts_in_a_published_set():
    """The data's manifest counts 588 rows with U+0E4D U+0E32."""
    with gzip.open(PAIRS, "rt", encoding="utf-8") as file:
        texts = ["\n".join(map(str, json.loads(line).values())) for line in file]
    apart = [text for text in texts if "\u0e4d\u0e32" in text]
    assert len(apart) == 588
    assert not any("\u0e4d\u0e32" in normalize(text, "th") for text in texts)
    assert sum(RULES["sara_am"](text) != text for text in texts) == 588
