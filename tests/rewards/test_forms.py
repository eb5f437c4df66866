"""Small rewards, by hand: format, overlong, contains, choice, calls, cites, language."""

import json

import pytest

from endonym.core.errors import DataError, RecipeError
from endonym.rewards.base import question_text, raw_text, reply_text, said
from endonym.rewards.calls import calls, mismatch, why_invalid
from endonym.rewards.choice import choice, read_choice
from endonym.rewards.cites import cites, references
from endonym.rewards.contains import contains, holds_string
from endonym.rewards.format import format
from endonym.rewards.language import language
from endonym.rewards.overlong import overlong, punishment


def test_what_is_said_after_thoughts():
    assert said("<think>a</think>b") == "b" and said("b") == "b"
    assert said("a</think>b") == "b"  # a template may open the tag in the prompt
    assert said("<think>a") == "" and said("<think>a</think>b<think>c") == "b"
    assert said("<think>a</think>b</think>c") == "c"
    assert said("<thinking>a</thinking>b", "thinking") == "b"
    turns = [
        {"role": "assistant", "content": "first"},
        {"role": "tool", "content": "tool"},
        {"role": "assistant", "content": "last", "reasoning_content": "hm"},
    ]
    assert raw_text(turns) == "<think>hm</think>last" and reply_text(turns) == "last"
    assert reply_text([{"role": "assistant", "content": None, "tool_calls": []}]) == ""
    assert reply_text([]) == "" and question_text("q") == "q"
    asked = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert question_text(asked) == "b" and question_text([]) == ""


@pytest.mark.parametrize(
    "text, keeps",
    [
        ("<think>because</think>five", True),
        (" \n<think>\nbecause\n</think>\n\nfive", True),
        ("five", False),
        ("Sure: <think>because</think>five", False),
        ("<think>a</think><think>b</think>five", False),
        ("<think>a</think>b</think>five", False),
        ("<think>because five", False),
        ("because</think>five", False),
        ("</think>a<think>five", False),
        ("<think></think>five", False),
        ("<think>\u200b ...</think>five", False),
        ("<think>because</think>", False),
        ("<think>because</think>\u200b", False),
    ],
)
def test_format(text, keeps):
    assert format()([""], [text]) == [float(keeps)]
    other = text.replace("think>", "thinking>")
    assert format(tag="thinking", value=0.5)([""], [other]) == [0.5 * keeps]
    assert format(tag="thinking")([""], [text]) == [0.0]


def test_format_of_parsed_thoughts_and_a_bad_tag():
    turn = {"role": "assistant", "content": "five", "reasoning_content": "because"}
    assert format()([""], [[turn]]) == [1.0]
    with pytest.raises(RecipeError, match="no tag name"):
        format(tag="<think>")


def test_overlong_is_continuous_and_ends_at_minus_one():
    # Typhoon-S: 4,096 with a buffer of 1,024; half way into the buffer is -1/2.
    assert [punishment(n, 4096, 1024) for n in (0, 3072, 3584, 4096, 9999)] == [0, 0, -0.5, -1, -1]
    assert punishment(3073, 4096, 1024) == pytest.approx(-1 / 1024)
    reward = overlong(limit=4, buffer=2)
    ids = [[1] * n for n in (2, 3, 4, 5)]
    assert reward([""] * 4, ["x"] * 4, completion_ids=ids) == [0.0, -0.5, -1.0, -1.0]
    with pytest.raises(DataError, match="counts tokens and was given none"):
        reward(["q"], ["a"])
    for limit, buffer in ((4, 0), (4, 5)):
        with pytest.raises(RecipeError, match="buffer does not fit"):
            overlong(limit=limit, buffer=buffer)


@pytest.mark.parametrize(
    "text, gold, holds",
    [
        ("The code is 12.", "12", True),
        ("The code is 4125.", "12", False),
        ("The code is 12.5", "12", False),
        ("The code is 1,012.", "12", False),
        ("code ๑๒ครับ", "12", True),
        ("A fresh start", "art", False),
        ("ART!", "art", True),
        ("ที่กรุงเทพมหานคร", "กรุงเทพ", True),
        ("서울에서 왔어요", "서울", True),
        ("กรุง\u200bเทพ", "กรุงเทพ", True),
        ("New\nYork", "new york", True),
        ("anything", " ", False),
    ],
)
def test_holds_string(text, gold, holds):
    assert holds_string(text, gold) is holds


def test_contains_all_or_any():
    both = ["red", "blue"]
    columns = {"answers": [both, both, None, None], "answer": [None, None, "red", None]}
    replies = ["red", "red blue", "<think>red</think>blue", "red"]
    assert contains()([""] * 4, replies, **columns) == [0.0, 1.0, 0.0, None]
    assert contains(mode="any")([""] * 4, replies, **columns) == [1.0, 1.0, 0.0, None]
    assert contains(longest=5)([""], ["red, and more"], answer=["red"]) == [0.0]
    with pytest.raises(RecipeError, match="no mode"):
        contains(mode="some")


def test_choice_reads_native_labels_and_refuses_hedging():
    options = ["cat", "dog", "bird", "fish"]
    for reply, index, reason in [
        ("정답은 (나)", 1, "marker"),
        ("정답은 나입니다.", 1, "marker"),
        ("(ㄷ)", 2, "label"),
        ("라", 3, "label"),
        ("คำตอบคือ ๓", 2, "marker"),
        ("The answer is (1). No: the answer is (3).", 2, "marker"),  # it may correct itself
        ("The answer is (1) or (3).", None, "ambiguous"),
        ("คำตอบคือ (1) หรือ (2)", None, "ambiguous"),
        ("The answer is (1). The answer is (2). The answer is (3).", None, "ambiguous"),
        ("<think>The answer is (2)", None, "empty reply"),
    ]:
        assert read_choice(reply, options) == (index, reason), reply
    rows = [options, options, None]
    values = choice([""] * 3, ["(2)", "(3)", "x"], choices=rows, answer=["1", 1, None])
    assert values == [1.0, 0.0, None]
    with pytest.raises(DataError, match="not the index of an option"):
        choice([""], ["(2)"], choices=[options], answer=["cat"])


READ = {
    "type": "function",
    "function": {
        "name": "read_law",
        "parameters": {
            "type": "object",
            "properties": {
                "law_name": {"type": "string"},
                "section": {"type": ["integer", "null"]},
                "kinds": {"type": "array", "items": {"enum": ["act", "code"]}},
            },
            "required": ["law_name"],
        },
    },
}


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"law_name": "a"}, ""),
        ('{"law_name": "a", "section": 3}', ""),
        ({"law_name": "a", "section": None, "kinds": ["act"]}, ""),
        ({"law_name": "a", "section": 2.0}, ""),
        ({}, "arguments: lacks 'law_name'"),
        ({"law_name": 5}, "arguments.law_name: not string"),
        ({"law_name": "a", "section": True}, "arguments.section: not integer or null"),
        ({"law_name": "a", "kinds": ["x"]}, "arguments.kinds[0]: not one of the allowed values"),
        ({"law_name": "a", "more": 1}, "arguments: unknown 'more'"),
        ("{", "arguments are no JSON"),
        ("[" * 100_000, "arguments are no JSON"),
        ("[]", "arguments: not object"),
        (None, "arguments: not object"),
    ],
)
def test_calls_by_reason(arguments, reason):
    called = {"function": {"name": "read_law", "arguments": arguments}}
    assert why_invalid(called, [READ]) == reason


def test_calls_that_are_none():
    assert why_invalid("read_law", [READ]) == "no function in the call"
    assert why_invalid({"function": {"name": ["x"]}}, [READ]) == "no tool ['x']"
    assert why_invalid({"function": {"name": "write_law"}}, [READ]) == "no tool 'write_law'"
    texts = {"additionalProperties": {"type": "string"}}
    assert mismatch({"a": 1}, texts, "x") == "x.a: not string"
    assert mismatch(3, {"anyOf": [{"type": "string"}, {"const": 4}]}, "x")


def test_calls_reward_in_text_and_messages():
    good = {"name": "read_law", "arguments": {"law_name": "a"}}
    text = f"<tool_call>{json.dumps(good)}</tool_call>"
    turns = [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": good}],
        },
        {"role": "tool", "content": "text"},
        {"role": "assistant", "content": "", "malformed": [{"place": 0, "error": "no JSON"}]},
    ]
    replies = [text, text + "<tool_call>{</tool_call>", "no call", turns, text]
    tools = [[READ], [READ], json.dumps([READ]), [READ], None]
    assert calls([""] * 5, replies, tools=tools) == [1.0, 0.5, 0.0, 0.5, None]


def gold(*pairs):
    return [{"type": "cites", "law_name": law, "section_num": number} for law, number in pairs]


TAX, LAND = "ประมวลรัษฎากร", "Land Act"


@pytest.mark.parametrize(
    "text, wanted, value",
    [
        ("ตามมาตรา ๔๐ (๘) แห่งประมวลรัษฎากร", [(TAX, "40")], 1.0),
        ("ประมวลรัษฎากร มาตรา 40 และ 42 ทวิ", [(TAX, "40"), (TAX, "42 ทวิ")], 1.0),
        ("ประมวลรัษฎากร มาตรา 40", [(TAX, "40"), (TAX, "42")], 0.5),
        ("ประมวลรัษฎากร มาตรา 401", [(TAX, "40")], 0.0),
        ("มาตรา 40", [(TAX, "40")], 0.0),  # of which law?
        ("민법 제12조의2에 따라", [("민법", "12의2")], 1.0),
        ("민법 제12조의2에 따라", [("민법", "12")], 0.0),
        ("Section 40 of the Land Act applies.", [(LAND, "40")], 1.0),
        ("See the Land Act.", [(LAND, "")], 1.0),
        (
            "section 3 of the Land Act and section 4 of the Tax Act",
            [(LAND, "3"), ("Tax Act", "4")],
            1.0,
        ),
        (
            "section 4 of the Land Act and section 3 of the Tax Act",
            [(LAND, "3"), ("Tax Act", "4")],
            0.0,
        ),
    ],
)
def test_cites(text, wanted, value):
    assert cites()([""], [text], checks=[gold(*wanted)]) == [value]


def test_who_names_every_section_has_cited_none():
    everything = TAX + " " + " ".join(f"มาตรา {n}" for n in range(1, 101))
    checks = [gold((TAX, "40"))]
    assert cites()([""], [everything], checks=checks) == [0.0]
    assert cites(spare=100)([""], [everything], checks=checks) == [1.0]
    assert cites()([""], ["x"], checks=[[{"type": "no_comma"}]]) == [None]
    assert references("มาตรา 5", []) == {("", "5")}
    for flood in ("1" * 50_000, "มาตรา 1," * 7_000, f"{TAX} มาตรา 1 " * 2_000, "제" * 50_000):
        references(flood, [TAX])  # not after minutes


def test_language_needs_one_letter_of_it():
    replies = {
        "ใช่ครับ": 1.0,
        "": 0.0,
        "123": 0.0,
        "ใช่ 是": 0.0,
        "ok ครับ": 1.0,
        "yes yes ครับ": 0.0,
        "<think>ใช่": 0.0,
        "ใช้ iPhone ได้ดีมากครับ": 1.0,
    }
    values = language([""] * 8, list(replies), language=["th"] * 8)
    assert values == list(replies.values())
