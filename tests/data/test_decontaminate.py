import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endonym.data.decontaminate import SHINGLE, Decontaminator, normalised
from endonym.data.document import Conversation, Document, Labelled, Preference, Prompt

_WORDS = "rice water school teacher monday river market money doctor garden bridge paper"
WORDS = _WORDS.split()
LONG = " ".join(random.Random(1).choices(WORDS, k=40))


def reason(prompts, *texts):
    return Decontaminator(prompts).reasons([list(texts)])[0]


@pytest.mark.parametrize(
    ("prompts", "text", "expected"),
    [
        (
            ["What is the capital of Laos?"],
            "Q: what is THE capital, of\nLaos — A: Vientiane",
            "prompt",
        ),
        (["เมืองหลวงของลาวคืออะไร"], "ถาม เมืองหลวง ของ ลาว คืออะไร ตอบ", "prompt"),
        (["What is the capital of Laos?"], "What is the capital of Lagos?", None),
        (["12000 + 50000 ="], "so 12000 + 50000 = b", "prompt"),
        (["12000 + 50000"], "112000 + 50000 = 162000", None),  # another sum: a digit goes on before
        (["12000 + 50000"], "12000 + 500001 = 512001", None),  # or after
        (["เขียน 1250 เป็นคำอ่าน"], "เขียน 1250 เป็นคำอ่าน", "same"),
        (["เขียน 1250 เป็นคำอ่าน"], "เขียน 11250 เป็นคำอ่าน", None),
        (["7 + 5"], "7+5", "same"),  # short prompts: only as a whole text
        (["7 + 5"], "what is 7 + 5 then", None),
        ([LONG], LONG[len(LONG) // 3 :], "shingles"),
        ([LONG], LONG[: SHINGLE + 12], None),  # one window of many
        ([LONG], "", None),
    ],
)
def test_reasons(prompts, text, expected):
    assert reason(prompts, text) == expected


def test_a_benchmarks_own_phrasing_counts_for_nothing():
    phrasing = "Answer the following question with one letter only and do not explain your answer. "
    prompts = [f"{phrasing} Question {word} {word[::-1]}?" for word in WORDS]
    assert reason(prompts, phrasing + "What grows in a field?") is None
    assert reason(prompts, prompts[3] + " B") == "prompt"
    assert reason(prompts[:1], phrasing + "What grows in a field?") == "shingles"


@given(
    st.lists(st.text("abก1 .", max_size=60), min_size=1, max_size=12),
    st.lists(st.lists(st.text("abก1 .", max_size=90), max_size=3), max_size=6),
)
def test_whole_prompts_are_found_exactly(prompts, rows):
    # the rolling hash against plain search, digits at the edges included
    wanted = [normalised(prompt) for prompt in prompts]

    def digit(text, at):
        return text[at : at + 1].isdigit() if at >= 0 else False

    def holds(text, prompt):
        for at in range(len(text)):
            end = at + len(prompt)
            before = prompt[0].isdigit() and digit(text, at - 1)
            after = prompt[-1].isdigit() and digit(text, end)
            if text.startswith(prompt, at) and not before and not after:
                return True
        return False

    def expected(texts):
        plain = [normalised(text) for text in texts]
        if any(text and text in wanted for text in plain):
            return "same"
        return "prompt" if any(holds(t, p) for t in plain for p in wanted if len(p) >= 8) else None

    for texts, why in zip(rows, Decontaminator(prompts).reasons(rows)):
        # half of a prompt may be there where the whole is not
        assert (None if why == "shingles" else why) == expected(texts)


def test_rows_pass_in_order_and_are_counted():
    clean = Decontaminator(["What is the capital of Laos?"])
    rows = [
        Document("a", "rivers of Laos"),
        Conversation("b", [{"role": "user", "content": "what is the capital of laos"}]),
        Conversation(
            "c", [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
        ),
    ]
    assert [row.id for row in clean(rows)] == ["a", "c"]
    assert clean.counts == {"kept": 2, "same": 1}


def test_no_prompts_keep_everything():
    assert [row.id for row in Decontaminator([])([Document("a", "x" * 100)])] == ["a"]


# --- by exam ----------------------------------------------------------------------------------------

SHORT = "What is the capital of Laos?"


def talk(number, text):
    return Conversation(number, [{"role": "user", "content": text}])


def test_rows_are_counted_by_exam_and_reason():
    exams = {"geography": [SHORT], "long": [LONG], "sums": ["12000 + 50000", SHORT]}
    clean = Decontaminator(exams)
    rows = [
        talk("kept", "hello"),
        talk("same", SHORT),  # of geography and of sums
        talk("prompt", f"Q: {SHORT} A: Vientiane. And 12000 + 50000?"),
        talk("shingles", LONG[len(LONG) // 3 :]),
        talk("two reasons", f"{LONG[len(LONG) // 3 :]} {SHORT}"),
    ]
    assert [row.id for row in clean(rows)] == ["kept"]
    assert clean.counts == {"kept": 1, "same": 1, "prompt": 2, "shingles": 1}
    assert clean.by_exam == {
        "geography": {"same": 1, "prompt": 2},
        "sums": {"same": 1, "prompt": 2},
        "long": {"shingles": 2},
    }


def test_the_strongest_reason_of_an_exam_counts():
    # the whole prompt stands in the row, so that its windows do too
    assert Decontaminator({"x": [LONG]}).held([[f"so {LONG}"]]) == [{"x": "prompt"}]
    assert Decontaminator({"x": [LONG]}).held([[LONG], ["no"]]) == [{"x": "same"}, {}]


def test_prompts_without_an_exam_have_no_name():
    clean = Decontaminator(iter([SHORT]))
    assert list(clean([talk("a", SHORT)])) == []
    assert clean.by_exam == {"": {"same": 1}}


def test_every_message_of_rows_of_other_kinds_is_compared():
    def said(text):
        return [{"role": "user", "content": text}]

    rows = [
        Preference("prompt", said(SHORT), said("a"), said("b")),
        Preference("rejected", said("x"), said("a"), said(SHORT)),
        Labelled("completion", said("x"), said(SHORT), label=True),
        Prompt("messages", said(SHORT)),
        Preference("kept", said("x"), said("a"), said("b")),
    ]
    assert [row.id for row in Decontaminator([SHORT])(rows)] == ["kept"]
