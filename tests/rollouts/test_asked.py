"""Prompts and answers as ids: what is the answer, what is the prompt, and what is refused."""

import numpy as np
import pytest

from endonym.core.errors import DataError
from endonym.data.document import Conversation, Prompt
from endonym.rollouts.asked import Asked, digests, ids_of, parted, prefixed
from eval.tiny import tokenizer

USER = {"role": "user", "content": "the country"}
SAID = {"role": "assistant", "content": "has a large population"}


def test_the_last_assistants_turn_is_the_answer():
    again = {"role": "user", "content": "and the water"}
    assert parted(Conversation("a", [USER, SAID, again, SAID])) == [([USER, SAID, again], SAID)]
    assert parted(Conversation("b", [USER, SAID, again])) == [([USER], SAID)]
    assert parted(Conversation("c", [USER])) == [([USER], None)]
    assert parted(Prompt("d", [USER, SAID, again])) == [([USER, SAID, again], None)]
    every = parted(Conversation("e", [USER, SAID, again, SAID]), every=True)
    assert every == [([USER], SAID), ([USER, SAID, again], SAID)]


TOOL = {
    "type": "function",
    "function": {
        "name": "search_law",
        "description": "Finds sections.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
    },
}


def test_of_a_conversation_with_tools_all_before_the_last_words_is_the_prompt(tmp_path):
    call = {"id": "a", "type": "function"}
    call["function"] = {"name": "search_law", "arguments": {"query": "water"}}
    messages = [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "section 12: the water"},
        SAID,
    ]
    words, row = tokenizer(), Conversation("a", messages, tools=[TOOL])
    made = Asked.build(tmp_path / "a", [row], words, key="k")
    prompt, answer = words.decode(made.prompt(0).tolist()), words.decode(made.answer(0).tolist())
    for told in ("search_law", "Finds sections.", '"query"', "section 12: the water"):
        assert told in prompt
    assert answer.startswith(SAID["content"]) and "section" not in answer
    ids, _ = words.encode_chat(messages, [TOOL])
    both = [*made.prompt(0).tolist(), *made.answer(0).tolist()]
    assert both == ids[: len(both)]
    # a call that comes last is an answer as well
    both_turns = Asked.build(tmp_path / "c", [row], words, key="k", every=True)
    assert len(both_turns) == 2 and len(made) == 1
    assert "search_law" in words.decode(both_turns.answer(0).tolist())
    assert words.decode(both_turns.prompt(0).tolist()).endswith("assistant\n")
    assert both_turns.answer(1).tolist() == made.answer(0).tolist()
    last = Asked.build(tmp_path / "b", [Conversation("b", messages[:2])], words, key="k")
    assert "search_law" in words.decode(last.answer(0).tolist())


def test_ids_are_those_of_training_whatever_the_weights_say():
    words = tokenizer()
    ids, learnt = words.encode_chat([USER, SAID, USER, SAID])
    messages = [USER, {**SAID, "weight": 1}, USER]
    prompt, answer = ids_of(words, messages, {**SAID, "weight": 0})
    assert prompt == words.encode_prompt([USER, SAID, USER])
    last = max(n for n, is_learnt in enumerate(learnt) if is_learnt)
    assert prompt + answer == ids[: last + 1] and answer[-1] in words.stop_ids


def test_a_store_is_built_once_and_its_identity_tells(tmp_path):
    words, rows = (
        tokenizer(),
        [Conversation("a", [USER, SAID], "en", "x"), Conversation("b", [USER])],
    )
    made = Asked.build(tmp_path / "a", rows, words, key="k")
    assert len(made) == 2 and made.prompt_lengths.tolist()[0] == made.prompt_lengths.tolist()[1]
    assert made.answer_lengths.tolist()[1] == 0 and not len(made.answer(1))
    assert (made.prompt(0).tolist(), made.answer(0).tolist()) == ids_of(words, [USER], SAID)
    assert made.languages.names == ["en", ""] and made.sources.codes.tolist() == [0, 1]
    again = Asked.build(tmp_path / "a", iter(()), words, key="k")  # is not read
    assert len(again) == 2 and again.identity == made.identity
    for change in ({"key": "l"}, {"prefix": "p"}, {"variables": {"keep_thinking": True}}):
        other = Asked.build(tmp_path / "b", rows, words, **{"key": "k", **change})
        assert other.identity != made.identity
    (tmp_path / "a" / "ids.bin").write_bytes(b"1234")
    with pytest.raises(DataError, match="not as it was written"):
        Asked(tmp_path / "a")


def test_a_prefix_stands_before_everything():
    text = "Answer in Thai."
    system = {"role": "system", "content": "Be brief."}
    assert prefixed([USER], "") == [USER]
    assert prefixed([USER], text) == [{"role": "system", "content": text}, USER]
    assert prefixed([system, USER], text)[0]["content"] == "Answer in Thai.\n\nBe brief."


def test_a_row_that_asks_nothing_is_named(tmp_path):
    with pytest.raises(DataError, match="row odd cannot be asked"):
        Asked.build(tmp_path / "a", [Conversation("odd", [SAID])], tokenizer(), key="k")


def test_digests_know_where_the_prompt_ends():
    pairs = [([1, 2], [3]), ([1], [2, 3]), ([1, 2], [3]), ([1, 2], [4])]
    found = [row.tobytes() for row in digests(pairs)]
    assert found[0] == found[2] and len(set(found)) == 3
    assert digests([(np.array([1, 2], np.uint32), np.array([3]))])[0].tobytes() == found[0]
