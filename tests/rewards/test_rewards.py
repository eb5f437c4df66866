"""Rewards: golden strings, one a reason, and TRL's calling form."""

from fractions import Fraction

import pytest

from endonym.core.errors import DataError, RecipeError
from endonym.rewards.answer import answer, boxed, clear, last_boxed, match, number
from endonym.rewards.language import language, particle
from endonym.rewards.mix import mix


@pytest.mark.parametrize(
    "reply, gold, code",
    [
        ("สี่สิบแปด", "สี่สิบแปด", "th"),
        ("  สี่สิบแปดครับ ", "สี่สิบแปด", "th"),
        ("คำตอบคือ “สี่สิบแปด” ค่ะ", "สี่สิบแปด", "th"),
        ("ประเทศญี่ปุ่น", "ญี่ปุ่น", "th"),
        ("48กิโลเมตร", "48 กิโลเมตร", "th"),
        ("๔๘ กิโลเมตร", "48 กิโลเมตร", "th"),
        ("น\u0e4d\u0e49า", "น้ำ", "th"),
        ("<think>49?</think>48", "48", ""),
        ("정답은 사십팔입니다.", "사십팔", "ko"),
        ("48 킬로미터", "48킬로미터", "ko"),
        ("The answer is Forty-Eight.", "forty-eight", "en"),
        ("“Euro”", "Euro", "en"),
        (r"ดังนั้น \boxed{1} ... \boxed{\frac{1}{2}}", "0.5", ""),
        (r"\boxed{1,250}", r"\boxed{1250}", ""),
        (r"\boxed{\sqrt{2}}", r"\sqrt{2}", ""),
    ],
)
def test_equal(reply, gold, code):
    assert match(reply, gold, code)[0]


@pytest.mark.parametrize(
    "reply, gold, code, reason",
    [
        ("สี่สิบเก้า", "สี่สิบแปด", "th", "different"),
        ("48", "48 กิโลเมตร", "th", "different"),
        ("", "48", "", "empty reply"),
        ("<think>48</think>", "48", "", "empty reply"),
        ("twenty one", "twentyone", "en", "different"),  # a space between Latin letters counts
        ("2.5", "25", "", "different"),
        (r"\boxed{48} no, \boxed{49}", "48", "", "different"),  # the last box counts
        ("forty-eight", "48", "en", "different"),
    ],
)
def test_different_by_reason(reply, gold, code, reason):
    holds, why, _ = match(reply, gold, code)
    assert not holds and why == reason


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("1,250.50", Fraction(2501, 2)),
        ("๑,๒๕๐", Fraction(1250)),
        ("-3/4", Fraction(-3, 4)),
        ("\u22127", Fraction(-7)),
        (r"-\dfrac{1}{3}", Fraction(-1, 3)),
        (r"\frac12", Fraction(1, 2)),
        ("$\\frac{19}{25}$", Fraction(19, 25)),
        ("25 บาท", Fraction(25)),
        ("12,34", None),
        ("1/0", None),
        ("x=2", None),
        ("", None),
        ("9" * 201, None),
        ("1e9", None),
    ],
)
def test_number(text, wanted):
    assert number(text) == wanted


def test_last_boxed_balances_braces():
    assert last_boxed(r"a \boxed{1} b \boxed {\frac{a}{b}} c") == r"\frac{a}{b}"
    assert last_boxed(r"\boxed{never closed") is None
    assert last_boxed(r"\boxed{3} then \boxed{open") == "3"
    assert last_boxed("none") is None


def test_clear_is_stable():
    for text in ("คำตอบคือ 48 ครับ", "“A  b”.", "ประเทศ"):
        assert clear(clear(text, "th"), "th") == clear(text, "th")
    assert clear("ประเทศ", "th") == "ประเทศ"  # never to nothing


def as_messages(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


def test_rewards_take_strings_and_messages_and_leave_out_rows_without_gold():
    columns = {"answer": ["48", "48", None], "language": ["", None, "th"]}
    for shape in (str, as_messages):
        replies = [shape(text) for text in ("48", "49", "ไม่ทราบครับ")]
        assert answer(["q"] * 3, replies, **columns, extra=[1, 2, 3]) == [1.0, 0.0, None]
        assert language(["q"] * 3, replies, **columns) == [None, None, 1.0]
        assert particle(["q"] * 3, replies, **columns) == [None, None, 1.0]
        assert boxed(["q"] * 3, replies) == [0.0, 0.0, 0.0]
    assert answer(["q"], ["48"]) == [None]
    with pytest.raises(DataError, match="column 'answer'"):
        answer(["q"] * 2, ["48", "49"], answer=["48"])


def test_particles():
    def one(text, code):
        return particle([""], [text], language=[code])[0]

    assert one("สวัสดีค่ะ!", "th") == 1.0 and one("สวัสดี", "th") == 0.0
    assert one("감사합니다.", "ko") == 1.0 and one("고마워.", "ko") == 0.0
    assert one("Thank you.", "en") is None  # English has none


def test_boxed_wants_exactly_one():
    assert boxed([""] * 3, [r"\boxed{1}", r"\boxed{1}\boxed{2}", r"\boxed{}"]) == [1.0, 0.0, 0.0]


def test_mix_is_the_weighted_sum_and_keeps_the_parts():
    reward = mix({"answer": 0.9, "particle": 0.1})
    columns = {"answer": ["ห้า", "ห้า", None], "language": ["th", "th", ""]}
    replies = ["ห้าครับ", "หกครับ", "5"]
    parts = reward.parts([""] * 3, replies, **columns)
    assert parts["answer"] == [1.0, 0.0, None] and parts["particle"] == [1.0, 1.0, None]
    # 0.9 * 1 + 0.1 * 1; 0.9 * 0 + 0.1 * 1; nothing applies
    assert parts["total"] == [pytest.approx(1.0), pytest.approx(0.1), None]
    assert reward([""] * 3, replies, **columns) == parts["total"]
    assert reward.__name__ == "answer+particle"
    with pytest.raises(RecipeError, match="did you mean 'answer'"):
        mix({"answr": 1.0})
    with pytest.raises(RecipeError, match="without parts"):
        mix({})


def test_an_index_and_an_example_are_no_gold_answers():
    """A choice's answer is an index, a constraint's one reply of many: other rewards read them."""
    found = answer(
        None,
        ["1", "1", "1"],
        answer=["1", "1", "1"],
        choices=[[], ["a", "b"], []],
        checks=[[], [], [{"type": "digits"}]],
    )
    assert found == [1.0, None, None]
