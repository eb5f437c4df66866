"""Every one of our own checkers with a reply that obeys and one that does not, in three languages."""

import pytest

from endonym.core.errors import DataError
from endonym.rewards.constraints import CHECKERS, obeys
from endonym.tasks.base import Item
from endonym.tasks.constraints import TASK

CASES = [  # type, arguments, obeys, does not
    ("language", {"language": "th"}, "ใช่ครับ", "Yes"),
    ("language", {"language": "ko"}, "네, 맞습니다", "はい"),
    ("language", {"language": "en"}, "Yes", "ใช่"),
    ("starts_with", {"text": "คำตอบคือ"}, "คำตอบคือ ห้า", "ห้าคือคำตอบ"),
    ("starts_with", {"text": "The answer"}, "the answer is 5", "5 is the answer"),
    ("ends_with", {"text": "ครับ"}, "ห้าครับ", "ห้าค่ะ"),
    ("ends_with", {"text": "입니다."}, "오입니다.", "오예요."),
    ("ends_with", {"text": "Thank you"}, "Five. Thank you!", "Thank you. Five."),
    ("contains", {"words": ["กรุงเทพ", "เมือง"]}, "กรุงเทพเป็นเมืองใหญ่", "กรุงเทพใหญ่มาก"),
    ("contains", {"words": ["น้ำ"]}, "ด\u0e37\u0e48มน\u0e4d\u0e49า", "ดื่มนม"),
    ("contains", {"words": ["학교"]}, "학교에서 만나요", "집에서 만나요"),
    ("contains", {"words": ["a.c"]}, "see a.c here", "see abc here"),  # taken literally
    ("excludes", {"words": ["แมว"], "language": "th"}, "แมวน้ำอยู่ในทะเล", "แมวอยู่ในบ้าน"),
    ("excludes", {"words": ["학교"], "language": "ko"}, "대학교에 간다", "학교에서 만나요"),
    ("excludes", {"words": ["cat"], "language": "en"}, "a category", "The cat sat."),
    ("keyword_frequency", {"word": "ดี", "count": 2}, "ดีมาก ดีจริง", "ดีมาก"),
    ("keyword_frequency", {"word": "좋", "count": 1, "relation": "at most"}, "좋다", "좋고 좋다"),
    ("lines", {"count": 2}, "หนึ่ง\nสอง", "หนึ่ง\nสอง\nสาม"),
    ("sentences", {"count": 2}, "첫째입니다. 둘째입니다.", "하나뿐입니다."),
    ("sentences", {"count": 2, "relation": "at least"}, "One. Two. Three.", "One."),
    (
        "words",
        {"count": 4, "language": "th", "relation": "at most"},
        "แมว กิน ปลา",
        "แมวกินปลาทูทอดตัวใหญ่",
    ),
    ("words", {"count": 3, "language": "ko"}, "나는 학교에 간다", "나는 간다"),
    (
        "words",
        {"count": 2, "language": "en", "relation": "exactly"},
        "Well — done",
        "Well done you",
    ),
    ("paragraphs", {"count": 2}, "ย่อหน้าแรก\n\nย่อหน้าสอง", "ย่อหน้าเดียว\nสองบรรทัด"),
    ("bullets", {"count": 2}, "- แดง\n- เขียว", "- แดง\n-"),
    ("quoted", {}, "“ห้า”", "“ห้า” ครับ"),
    ("quoted", {}, '"five"', '"five'),
    ("no_comma", {}, "แดง เขียว", "แดง, เขียว"),
    ("no_comma", {}, "빨강 초록", "빨강、초록"),
    ("polite", {"language": "th"}, "ห้าค่ะ", "ห้า"),
    ("polite", {"language": "ko"}, "다섯이에요!", "다섯이야."),
    ("questions", {"count": 2}, "ใช่ไหม? แน่ใจหรือ?!", "ใช่ไหม?? แน่ใจ"),  # a run of marks is one
    ("characters", {"count": 3}, "น้ำ ดี", "น้ำดีมาก"),  # น้ำ is one
    ("characters", {"count": 4, "relation": "at least"}, "나는 간다", "나는"),
    ("numbered", {"count": 2}, "1. แดง\n2. เขียว", "1. แดง\n3. เขียว"),
    ("numbered", {"count": 2}, "๑) แดง\n๒) เขียว\nจบ", "๑) แดง"),
    ("numbered", {"count": 2, "relation": "at least"}, "1. a\n2. b\n3. c", "1.\n2."),
    ("digits", {"kind": "native", "language": "th"}, "มี ๓ ตัว", "มี 3 ตัว ๒ ตน"),
    ("digits", {"kind": "none", "language": "ko"}, "세 마리", "3마리"),
    (
        "cites",
        {"law_name": "ประมวลรัษฎากร", "section_num": "40"},
        "ตามมาตรา ๔๐ แห่งประมวลรัษฎากร",
        "ตามประมวลรัษฎากร มาตรา 401",
    ),
    (
        "parts",
        {"unit": "sentence", "count": 2, "language": "ko"},
        "날씨가 좋습니다 내일은 비가 옵니다",  # kiwi needs no marks
        "날씨가 좋습니다",
    ),
    ("parts", {"unit": "item", "count": 2, "language": "th"}, "๑. แดง\n- ฟ้า\nจบ", "1. แดง\nจบ"),
    ("parts", {"unit": "item", "count": 2, "language": "th"}, "แดง\nฟ้า", "แดง"),  # no marks: lines
    ("parts", {"unit": "hashtag", "count": 2, "language": "th"}, "ทะเล #ฟ้า #คลื่น", "#ฟ้า"),
    (
        "each",
        {"unit": "line", "check": {"type": "contains", "words": ["ฝน"]}, "language": "th"},
        "ฝนมา\nฟ้าฝน",
        "ฝนมา\nฟ้าใส",
    ),
    (
        "nth",
        {"unit": "paragraph", "place": -1, "check": {"type": "no_comma"}, "language": "en"},
        "One, two.\n\nThree.",
        "One.\n\nTwo, three.",
    ),
    ("not", {"check": {"type": "no_comma"}}, "One, two", "One"),
    (
        "table",
        {"columns": ["สี", "ราคา"], "rows": 1},
        "| สี | ราคา |\n|---|:-:|\n| แดง | 5 |",
        "| สี | ราคา |\n|---|---|\n| แดง |  |",
    ),
    ("json", {"keys": ["a"], "count": 2}, '[{"a": 1}, {"a": 2}]', '[{"a": 1}, {"b": 2}]'),
    ("json", {"values": ["x"]}, '```json\n["x"]\n```', '["x", "y"]'),
    ("matches", {"pattern": r"\d{2}:\d{2}"}, "at 10:30", "at noon"),
]


@pytest.mark.parametrize("name, arguments, good, bad", CASES)
def test_checker(name, arguments, good, bad):
    check = {"type": name, **arguments}
    assert obeys(good, check)
    assert not obeys(bad, check)
    assert not obeys("", check) and not obeys(" \n", check)  # an empty reply obeys nothing


def test_every_checker_has_a_case():
    assert {name for name, *_ in CASES} == set(CHECKERS)


def test_thoughts_are_not_looked_at():
    assert obeys("<think>Hmm, in English</think>ใช่", {"type": "language", "language": "th"})
    assert not obeys("ครับ<think></think>", {"type": "ends_with", "text": "ครับ"})


def test_unknown_types_relations_and_arguments_are_errors():
    with pytest.raises(DataError, match="did you mean 'sentences'"):
        obeys("a", {"type": "sentence"})
    with pytest.raises(DataError, match="wrong arguments"):
        obeys("a", {"type": "lines", "number": 2})
    with pytest.raises(DataError, match="unknown relation"):
        obeys("a", {"type": "lines", "count": 2, "relation": "more than"})
    with pytest.raises(DataError, match="lists no polite ending"):
        obeys("a", {"type": "polite", "language": "en"})
    with pytest.raises(DataError, match="no digits of its own"):
        obeys("1", {"type": "digits", "kind": "native", "language": "ko"})
    with pytest.raises(DataError, match="did you mean 'native'"):
        obeys("1", {"type": "digits", "kind": "natives", "language": "th"})
    with pytest.raises(DataError, match="did you mean 'paragraph'"):
        obeys("1", {"type": "parts", "unit": "paragraphs", "count": 1, "language": "th"})
    with pytest.raises(DataError, match="pattern is none"):
        obeys("1", {"type": "matches", "pattern": "("})
    with pytest.raises(DataError, match="without checks"):
        TASK.check(Item("i", "constraint", "t"), "a")


def test_a_reply_passes_only_if_all_rules_hold():
    checks = [{"type": "polite", "language": "th"}, {"type": "lines", "count": 1}]
    item = Item("i", "constraint", "t", "th", answer="ห้าครับ", checks=checks)
    assert TASK.check(item, "ห้าครับ").reason == "obeyed"
    broken = TASK.check(item, "ห้า\nหก")
    assert broken.score == 0.0 and broken.reason == "broken: polite, lines"
