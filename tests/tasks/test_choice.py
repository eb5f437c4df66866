"""Reading a choice out of a reply, one crafted reply a reason; continuations for likelihood."""

import pytest

from endonym.core.errors import DataError
from endonym.tasks.base import Item
from endonym.tasks.choice import TASK, continuations, read_choice, show

THAI = ["หนึ่งร้อย", "หนึ่งร้อยเอ็ด", "สองร้อย", "ข้าว"]
ENGLISH = ["the cat", "the dog", "a bird"]


@pytest.mark.parametrize(
    "reply, options, index, reason",
    [
        ("คำตอบคือ (2)", THAI, 1, "marker"),
        ("คิดก่อน (1) หรือ (3) ดังนั้น คำตอบคือ (b)", THAI, 1, "marker"),
        ("คำตอบที่ถูกต้องคือข้อ 3 ครับ", THAI, 2, "marker"),
        ("คำตอบคือ ข", THAI, 1, "marker"),
        ("정답은 (4)입니다.", THAI, 3, "marker"),
        ("정답은 ③", ENGLISH, 2, "marker"),
        ("The answer is (B).", ENGLISH, 1, "marker"),
        ("Answer: 3", ENGLISH, 2, "marker"),
        ("<think>(1)? the answer is (1)</think>The answer is (2)", ENGLISH, 1, "marker"),
        ("หนึ่งร้อย", THAI, 0, "text"),
        ("The dog.", ENGLISH, 1, "text"),
        ("b", ENGLISH, 1, "label"),
        ("(๒)", THAI, 1, "label"),
        ("ง", THAI, 3, "label"),
        ("I would say (3) here.", ENGLISH, 2, "bracket"),
        ("คือหนึ่งร้อยเอ็ดนั่นเอง", THAI, 1, "contained"),  # the longest of nested options
        ("I think a bird fits.", ENGLISH, 2, "contained"),
        ("2", ["2", "3"], None, "ambiguous"),  # option 1's text, option 2's label
        ("(2)", ["2", "3"], 1, "label"),
        ("3", ["2", "3"], 1, "text"),  # there is no third option, so it can only be the text
        ("(1) or (2)", ENGLISH, None, "ambiguous"),
        ("the cat or the dog", ENGLISH, None, "ambiguous"),
        ("คำตอบคือ ข้าวผัด", THAI, 3, "contained"),  # ข้าว begins with ข but is no label
        ("no idea", ENGLISH, None, "no option found"),
        ("(7)", ENGLISH, None, "no option found"),
        ("", ENGLISH, None, "empty reply"),
    ],
)
def test_read_choice(reply, options, index, reason):
    assert read_choice(reply, options) == (index, reason)


def test_the_task_scores_and_gives_a_target_in_the_items_language():
    item = Item("i", "choice", "t", "th", answer="1", choices=THAI)
    assert TASK.target(item) == "คำตอบคือ (2)"
    assert TASK.check(item, "คำตอบคือ (2)").score == 1.0
    wrong = TASK.check(item, "คำตอบคือ (1)")
    assert (wrong.score, wrong.reason, wrong.parsed) == (0.0, "wrong option", "0")
    korean = Item("i", "choice", "t", "ko", answer="0", choices=["가", "나"])
    assert TASK.target(korean) == "정답은 (1)입니다."
    with pytest.raises(DataError, match="not the index of an option"):
        TASK.target(Item("i", "choice", "t", "en", answer="4", choices=["a", "b"]))


def test_continuations_carry_the_contexts_last_space():
    item = Item("i", "choice", "t", "en", answer="0", choices=["cat", "dog"], context="It is a ")
    assert continuations(item) == ("It is a", [" cat", " dog"])
    glued = Item("i", "choice", "t", "th", answer="0", choices=["ไทย"], context="ประเทศ")
    assert continuations(glued) == ("ประเทศ", ["ไทย"])
    with pytest.raises(DataError, match="empty option"):
        continuations(Item("i", "choice", "t", answer="0", choices=["a", " "]))


def test_show():
    assert show(["ก", "ข"]) == "(1) ก\n(2) ข"
