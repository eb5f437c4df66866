"""Every row type that people have, as the row that it becomes, or the reason why not."""

import json

import pytest

from endonym.data.document import Conversation, Labelled, Preference, Prompt
from endonym.data.files import find
from endonym.data.read import Reading

ASKED = {"role": "user", "content": "a"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in "bc")
SYSTEM = {"role": "system", "content": "s"}
SCHEMA = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": SCHEMA}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "x"}}}


def read(tmp_path, kind, *rows, **settings):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    reading = Reading(find(path), kind, **{"limit": 1.0, **settings})
    found = list(reading)
    assert reading.rows_in == len(rows) and reading.rows_used == len(found)
    return found, list(reading.reasons)


def one(tmp_path, kind, row, **settings):
    (found,), _ = read(tmp_path, kind, row, **settings)
    return found


def reason(tmp_path, kind, row):
    found, (why,) = read(tmp_path, kind, row)
    assert not found
    return why


# --- conversations ------------------------------------------------------------------------------


@pytest.mark.parametrize("tools", [[TOOL], [SCHEMA], json.dumps([TOOL]), [json.dumps(SCHEMA)]])
def test_tools_in_every_form(tmp_path, tools):
    row = one(tmp_path, Conversation, {"messages": [ASKED, GOOD], "tools": tools})
    assert row.tools == [TOOL]


def test_no_tools(tmp_path):
    for tools in (None, [], "", " ", "[]", "null"):
        row = {"messages": [ASKED, GOOD], "tools": tools}
        assert one(tmp_path, Conversation, row).tools == []


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ({"name": "f"}, "tools is not a list of functions"),
        ([{"parameters": {}}], "a tool has no name"),
        ([{"function": {"name": 3}}], "a tool has no name"),
        ([3], "a tool has no name"),
        ("weather(x)", "tools is not a list of functions"),
        ([{"name": "f", "x": "\ud800"}], "lone surrogate in tools"),
    ],
)
def test_tools_that_are_none(tmp_path, tools, why):
    row = {"messages": [ASKED, GOOD], "tools": tools}
    assert reason(tmp_path, Conversation, row) == why


def test_what_is_nested_beyond_measure_is_set_aside(tmp_path):
    deep = 0
    for _ in range(100):
        deep = [deep]
    row = {"messages": [ASKED, GOOD], "tools": [{"name": "f", "x": deep}]}
    assert reason(tmp_path, Conversation, row) == "tools: nested more than 64 deep"


def test_sharegpt_with_system_tools_and_calls(tmp_path):
    row = {
        "system": "s",
        "tools": json.dumps([SCHEMA]),
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "function_call", "value": json.dumps(CALL["function"])},
            {"from": "observation", "value": "rain"},
            {"from": "gpt", "value": "b"},
        ],
    }
    found = one(tmp_path, Conversation, row)
    assert found.tools == [TOOL]
    called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert found.messages == [SYSTEM, ASKED, called, {"role": "tool", "content": "rain"}, GOOD]
    row["conversations"][1]["value"] = "weather(x)"
    assert reason(tmp_path, Conversation, row).startswith("a function_call turn is not JSON")


def test_openai_rows_with_weights_of_turns(tmp_path):
    first, second = GOOD | {"weight": 0}, BAD | {"weight": 1}
    row = {"messages": [ASKED | {"weight": 1}, first, ASKED, second], "weight": 0.5}
    found = one(tmp_path, Conversation, row)
    assert found.messages == [ASKED, first, ASKED, second] and found.weight == 0.5
    assert reason(tmp_path, Conversation, {"messages": [ASKED, first]}).startswith(
        "no assistant turn is learnt"
    )


@pytest.mark.parametrize("weight", ["1", True, -0.5, float("nan"), float("inf"), 10**400, [1]])
def test_weights_that_are_none(tmp_path, weight):
    for row in (
        {"messages": [ASKED, GOOD], "weight": weight},
        {"messages": [ASKED, GOOD | {"weight": weight}]},
    ):
        assert "weight is" in reason(tmp_path, Conversation, row)


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        (GOOD | {"tool_calls": [{"function": {}}]}, "a tool call has no name"),
        (GOOD | {"tool_calls": "f(x)"}, "tool_calls is not a list"),
        (GOOD | {"name": 3}, "name is not a string"),
        (
            {"role": "assistant", "content": [{"type": "image_url", "image_url": {}}]},
            "a turn holds content that is not text but image_url",
        ),
    ],
)
def test_what_the_tokenizer_would_refuse_costs_a_row_and_not_a_run(tmp_path, turn, why):
    assert reason(tmp_path, Conversation, {"messages": [ASKED, turn, GOOD]}) == why


def test_columns_of_other_names(tmp_path):
    row = {"question": "a", "answer": "b", "w": 2}
    names = {"prompt": "question", "completion": "answer", "weight": "w"}
    found = one(tmp_path, Conversation, row, columns=names)
    assert found.messages == [ASKED, GOOD] and found.weight == 2


# --- preferences --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        {"prompt": "a", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},  # UltraFeedback
        {"prompt": [ASKED], "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
        {"instruction": "a", "input": "", "chosen": "b", "rejected": "c"},
        {"prompt": [{"from": "human", "value": "a"}], "chosen": "b", "rejected": "c"},
        {
            "conversations": [{"from": "human", "value": "a"}],
            "chosen": {"from": "gpt", "value": "b"},
            "rejected": {"from": "gpt", "value": "c"},
        },
        {
            "input": {"messages": [ASKED]},
            "preferred_output": [GOOD],
            "non_preferred_output": [BAD],
        },
    ],
)
def test_shapes_of_a_preference(tmp_path, row):
    found = one(tmp_path, Preference, row)
    assert (found.prompt, found.chosen, found.rejected) == ([ASKED], [GOOD], [BAD])
    assert found.margin is None and found.tools == []


def test_margin_and_tools_of_a_preference(tmp_path):
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 2, "tools": [SCHEMA]}
    found = one(tmp_path, Preference, row)
    assert (found.margin, found.tools) == (2.0, [TOOL])
    assert "margin is not a number" in reason(tmp_path, Preference, row | {"margin": "2"})
    given = {"input": {"messages": [ASKED], "tools": [TOOL]}}
    row = given | {"preferred_output": [GOOD], "non_preferred_output": [BAD]}
    assert one(tmp_path, Preference, row).tools == [TOOL]


def test_an_implicit_prompt_is_what_both_sides_begin_with(tmp_path):
    talk = [SYSTEM, ASKED, GOOD, ASKED]
    sides = {"chosen": [*talk, GOOD], "rejected": [*talk, BAD]}
    assert one(tmp_path, Preference, sides).prompt == talk
    plain = {"chosen": "The sky is blue.", "rejected": "The sky is blurred."}
    found = one(tmp_path, Preference, plain)
    assert found.prompt == [{"role": "user", "content": "The sky is"}]
    assert found.chosen[0]["content"] == " blue." and found.rejected[0]["content"] == " blurred."


def test_texts_that_are_judged_by_themselves(tmp_path):
    for nothing in ("", []):
        row = {"prompt": nothing, "chosen": [GOOD], "rejected": [BAD]}
        assert one(tmp_path, Preference, row).prompt == []


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "a", "chosen": "b"}, "no preference in a known shape (keys: prompt, chosen)"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same"),
        ({"chosen": "blue", "rejected": "blurred"}, "chosen and rejected share no prompt"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "chosen and rejected share no prompt"),
        ({"chosen": [ASKED, GOOD], "rejected": [ASKED]}, "rejected is no answer of the assistant"),
        (
            {"prompt": "z", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
            "chosen is no answer of the assistant",
        ),
        ({"prompt": "a", "chosen": "", "rejected": "c"}, "empty assistant turn"),
        ({"prompt": [GOOD], "chosen": "b", "rejected": "c"}, "the prompt ends with an assistant"),
        ({"prompt": 3, "chosen": "b", "rejected": "c"}, "user is not a list of turns"),
        (
            {"prompt": "a", "completions": ["b"], "labels": [True]},
            "a stepwise supervision row (completions, labels): no stage learns from single steps",
        ),
    ],
)
def test_why_a_preference_cannot_be_used(tmp_path, row, why):
    assert reason(tmp_path, Preference, row).startswith(why)


# --- labelled answers and prompts ---------------------------------------------------------------


def test_labelled_answers(tmp_path):
    row = {"prompt": "a", "completion": "b", "label": True, "tools": [SCHEMA]}
    found = one(tmp_path, Labelled, row)
    assert (found.prompt, found.completion, found.label) == ([ASKED], [GOOD], True)
    assert found.tools == [TOOL]
    talk = {"prompt": [ASKED], "completion": [BAD], "label": 0}
    assert one(tmp_path, Labelled, talk).label is False
    told = {"messages": [ASKED, GOOD], "label": True}
    assert one(tmp_path, Labelled, told).completion == [GOOD]
    assert "no answer of the" in reason(tmp_path, Labelled, told | {"messages": [GOOD, ASKED]})
    for label in ("yes", 2, None, 1.0):
        assert "label is not" in reason(tmp_path, Labelled, row | {"label": label})
    assert "no labelled answer" in reason(tmp_path, Labelled, {"prompt": "a", "label": True})


def test_prompts_keep_what_their_rows_say(tmp_path):
    row = {"id": "7", "prompt": "a", "answer": "4", "difficulty": [1, None], "task": "sums"}
    found = one(tmp_path, Prompt, row, language="en")
    assert found.messages == [ASKED] and found.columns == {"answer": "4", "difficulty": [1, None]}
    assert (found.id, found.task, found.language) == ("7", "sums", "en")
    found = one(tmp_path, Prompt, {"q": "a", "gold": 1}, columns={"prompt": "q"})
    assert found.messages == [ASKED] and found.columns == {"gold": 1}
    assert "ends with an assistant" in reason(tmp_path, Prompt, {"prompt": [ASKED, GOOD]})
    assert "no prompt" in reason(tmp_path, Prompt, {"question": "a"})
    why = reason(tmp_path, Prompt, {"prompt": "a", "answer": float("nan")})
    assert why == "column answer holds a number that JSON does not know"


def test_a_row_of_another_kind_is_named(tmp_path):
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert reason(tmp_path, Conversation, row).startswith("a preference row")
    row = {"prompt": "a", "completions": ["b"], "labels": [True]}
    for kind in (Conversation, Labelled):
        assert reason(tmp_path, kind, row).startswith("a stepwise supervision row")
