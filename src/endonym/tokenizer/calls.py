"""Tool calls in an assistant's words: text of a turn -> message with tool_calls.

The form is that of Hermes and Qwen, which chat.CHATML writes too: <tool_call>{"name": ...,
"arguments": {...}}</tool_call>, any number of them. A model writes what it likes, so whatever is not
exactly such a call is left where it stands, in the content, and reported.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from endonym.core.errors import DataError
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.messages import split_thoughts

OPEN, CLOSE = "<tool_call>", "</tool_call>"
THINK, THOUGHT = "<think>", "</think>"
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Of a function, OpenAI's rule with the dots that some servers allow."""
MAX_DEPTH = 32
"""Of the arguments' lists and objects; templates walk through them by recursion."""
MAX_CALLS = 32
"""Of one turn that are read, for each is answered."""

_SPACE = re.compile(r"\s*")


def parse_reply(text: str, *, thoughts: bool = True, first: int = 1) -> dict[str, Any]:
    """The assistant's message out of the text of its turn.

    {"role": "assistant", "content", "reasoning_content"?, "tool_calls"?, "malformed"?}

    thoughts: part the thoughts from the words; without, they stay in the content and are read as words
    first:    number of the first call's id; ids are "call00001" ... (nine letters and digits, which
              the strictest templates ask for)

    tool_calls are OpenAI's, with the arguments as an object. A call that is not one (no JSON, no name,
    no object as arguments, nested deeper than MAX_DEPTH, not closed, no valid Unicode) stays in the
    content and is listed: "malformed": [{"place": its number among all calls of the turn, from 0,
    "error": ...}]. So is all that follows MAX_CALLS calls, as one. What stands in thoughts is never a
    call.
    """
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thoughts:
        message |= _without_thoughts(text)
    text, kept, at = message["content"], [], 0
    calls, malformed, place = [], [], 0
    while (begin := text.find(OPEN, at)) >= 0:
        if place == MAX_CALLS:
            malformed.append({"place": place, "error": "too many calls"})
            break
        kept.append(text[at:begin])
        found, end = _call(text, begin + len(OPEN))
        if isinstance(found, dict):
            name = f"call{first + len(calls):05d}"
            calls.append({"id": name, "type": "function", "function": found})
        else:
            malformed.append({"place": place, "error": found})
            kept.append(text[begin:end])
        place, at = place + 1, end
    if calls:
        kept.append(text[at:])
        message["content"] = "".join(
            part if number == 0 else part.strip() and part for number, part in enumerate(kept)
        ).rstrip()
        message["tool_calls"] = calls
    if malformed:
        message["malformed"] = malformed
    return message


def _without_thoughts(text: str) -> dict[str, str]:
    """The thoughts and the words. A block that is never closed is thoughts alone; one that was opened
    by the generation prompt has only its end."""
    found = split_thoughts(text)
    if "reasoning_content" in found:
        return found
    before, end, after = text.partition(THOUGHT)
    if end and THINK not in before:
        return {"reasoning_content": before.strip("\n"), "content": after.lstrip("\n")}
    if text.lstrip().startswith(THINK):
        return {"reasoning_content": text.lstrip()[len(THINK) :].lstrip("\n"), "content": ""}
    return found


def _call(text: str, at: int) -> tuple[dict[str, Any] | str, int]:
    """(the function of the call whose JSON begins at `at`, or what is wrong with it; where it ends)."""
    close = text.find(CLOSE, at)
    end = len(text) if close < 0 else close + len(CLOSE)
    try:
        value, stop = _DECODER.raw_decode(text, _SPACE.match(text, at).end())
    except RecursionError:
        return "nested too deeply", end
    except ValueError:
        return "not valid JSON", end
    stop = _SPACE.match(text, stop).end()
    if not text.startswith(CLOSE, stop):
        return ("not closed" if close < 0 else "not valid JSON"), end
    end = stop + len(CLOSE)
    if not isinstance(value, dict):
        return "not a JSON object", end
    name, arguments = value.get("name"), value.get("arguments")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return "no valid name", end
    if not isinstance(arguments, dict):
        return "arguments are not a JSON object", end
    if _depth(arguments) > MAX_DEPTH:
        return "nested too deeply", end
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "not valid Unicode", end
    return {"name": name, "arguments": arguments}, end


def _not_json(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_not_json)


def _depth(value: Any) -> int:
    depth, layer = 0, [value]
    while layer and depth <= MAX_DEPTH:
        depth += 1
        inner = (each.values() if isinstance(each, dict) else each for each in layer)
        layer = [each for values in inner for each in values if isinstance(each, dict | list)]
    return depth


def check_calls(tokenizer: Tokenizer, tools: Sequence[dict[str, Any]]) -> None:
    """Once before a run with tools: the template shows them, writes a call in the form that parse_reply
    reads, and shows what a tool answers. DataError says which of them it does not.

    Many templates pass over `tools` without a word, and the model would never hear of them.
    """
    tools = list(tools)
    name = tools[0]["function"]["name"]
    asked = {"role": "user", "content": "qqq"}
    call = {"id": "call00001", "type": "function", "function": {"name": name, "arguments": {}}}
    talk = [
        asked,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "name": name, "content": "zzz"},
    ]
    do = "use a template that does, or chat.with_chat(tokenizer)"
    if name not in tokenizer.render([asked], True, tools):
        raise DataError("the chat template does not show a model its tools", wanted=name, do=do)
    try:
        rows = tokenizer.training_rows(talk, tools)
        told = tokenizer.decode(tokenizer.encode_answers(talk, 2, tools))
    except DataError as error:
        raise DataError(
            "the chat template has no turns for tools", got=str(error).splitlines()[0], do=do
        ) from None
    ids, learnt = rows[0]
    turn = tokenizer.decode([token for token, is_learnt in zip(ids, learnt) if is_learnt])
    if parse_reply(turn).get("tool_calls") != [call]:
        raise DataError(
            "the chat template writes tool calls in a form that is not read here",
            wanted=f'{OPEN}{{"name": ..., "arguments": {{...}}}}{CLOSE}',
            got=turn,
            do=do,
        )
    if "zzz" not in told:
        raise DataError("the chat template does not show what a tool answers", got=told, do=do)
