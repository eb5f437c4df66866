"""Messages: what they may hold, and how their content is kept from being taken for control.

They are OpenAI's, as TRL and transformers take them:

    role               system, user, assistant or tool
    content            a string, or a list of parts {"type": "text", "text": ...}, {"type": "image"},
                       {"type": "audio"}, {"type": "video"}; null only beside tool_calls
    reasoning_content  the thoughts before an assistant's words ("" = answered without thinking)
    tool_calls         [{"id": ..., "function": {"name": ..., "arguments": object or JSON}}, ...]
    tool_call_id, name which call a tool turn answers
    weight             of an assistant's turn: a number by which the weight of its tokens is multiplied
                       in training, 0 = read and not learnt (OpenAI's; templates are not shown it)
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from endonym.core.errors import DataError

ROLES = ("system", "user", "assistant", "tool")
PLACEHOLDERS = {kind: f"<|{kind}|>" for kind in ("image", "audio", "video")}
"""Control tokens that stand where a model puts an image's, a sound's or a film's own vectors."""
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Names under which an assistant's thoughts are found; transformers gives templates the first."""
NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_THOUGHT = re.compile(r"\s*<think>\n?(.*?)\n?</think>\n*", re.DOTALL)


def split_thoughts(text: str) -> dict[str, str]:
    """{"reasoning_content": ..., "content": ...} out of an assistant's text that begins with
    <think>...</think>; {"content": text} of any other."""
    found = _THOUGHT.match(text)
    if found is None:
        return {"content": text}
    return {"reasoning_content": found.group(1), "content": text[found.end() :]}


def checked(
    messages: Sequence[Any], has_placeholder: Callable[[str], bool] = lambda kind: True
) -> list[dict[str, Any]]:
    """The messages, if a template can be trusted with them; DataError where it would guess.

    A template writes "None" for a missing content or drops a role it does not know, and training
    goes on. So this is asked before any template. Null content beside tool calls becomes "".
    """
    if not isinstance(messages, (list, tuple)):
        raise DataError("a conversation is not a list of messages", got=type(messages).__name__)
    out = []
    for number, message in enumerate(messages, start=1):
        where = f"message {number} of {len(messages)}"
        if not isinstance(message, dict):
            raise DataError("a message is not an object", where=where, got=type(message).__name__)
        role, calls = message.get("role"), message.get("tool_calls")
        if role not in ROLES:
            raise DataError(
                f"unknown role {role}", where=where, wanted=f"one of {', '.join(ROLES)}"
            )
        _check_calls(calls, where)
        for key in ("reasoning_content", "tool_call_id", "name"):
            if not isinstance(message.get(key), str | None):
                raise DataError(
                    f"{key} is not a string", where=where, got=type(message[key]).__name__
                )
        _check_weight(message.get("weight"), where)
        content = message.get("content")
        if content is None and calls:
            message = message | {"content": ""}
        elif isinstance(content, (list, tuple)):
            _check_parts(content, where, has_placeholder)
        elif not isinstance(content, str):
            raise DataError(
                f"the {role} message has no content that can be written",
                where=where,
                wanted="a string or a list of parts; null only beside tool_calls",
                got=type(content).__name__ if "content" in message else "no content",
            )
        out.append(message)
    return out


def weights(messages: Sequence[dict[str, Any]]) -> list[float]:
    """How much each message's tokens weigh where they are learnt; 1 where nothing is said."""
    given = [message.get("weight") for message in messages]
    return [1.0 if weight is None else float(weight) for weight in given]


def unweighted(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages as a template is shown them."""
    if not any("weight" in message for message in messages):
        return messages
    return [{k: v for k, v in message.items() if k != "weight"} for message in messages]


def _check_weight(weight: Any, where: str) -> None:
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if weight is not None and not (is_number and 0 <= weight <= sys.float_info.max):
        raise DataError(
            "a message's weight is no number of at least 0", where=where, got=repr(weight)[:80]
        )


def _check_calls(calls: Any, where: str) -> None:
    if calls is None:
        return
    if not isinstance(calls, (list, tuple)):
        raise DataError("tool_calls is not a list", where=where, got=type(calls).__name__)
    for call in calls:
        function = call.get("function") or call if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise DataError(
                "a tool call has no name",
                where=where,
                wanted='{"function": {"name": ..., "arguments": ...}}',
                got=repr(call)[:80],
            )


def _check_parts(parts: Sequence[Any], where: str, has_placeholder: Callable[[str], bool]) -> None:
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            continue
        if kind not in PLACEHOLDERS:
            raise DataError(
                "a part of a content cannot be written",
                where=where,
                wanted='{"type": "text", "text": ...}, {"type": "image"}, "audio" or "video"',
                got=repr(part)[:80],
            )
        if not has_placeholder(kind):
            raise DataError(
                f"the tokenizer has no token {PLACEHOLDERS[kind]!r}, so no {kind} can be written",
                where=where,
                do=f"reserve it: chat.with_chat(tokenizer, modalities=[{kind!r}])",
            )


def broken(
    messages: list[dict[str, Any]], tools: list[dict] | None, control: re.Pattern[str]
) -> tuple[list[dict[str, Any]], list[dict] | None, str]:
    """The conversation with a mark inside every control string of its content, and the mark.

    The mark is a noncharacter that stands nowhere in the conversation ("" when none was needed), so
    taking it out of the rendered text restores the content exactly. DataError for values nested too
    deeply to be walked through.
    """
    try:
        strings = list(_strings([messages, tools]))
        if not any(control.search(text) for text in strings):
            return messages, tools, ""
        used = set().union(*map(set, strings))
        mark = next((letter for letter in NONCHARACTERS if letter not in used), None)
        if mark is None:
            raise DataError(
                "a conversation holds control strings and every noncharacter U+FDD0 to U+FDEF",
                do="remove the row: noncharacters are not meant for interchange",
            )

        def split(text: str) -> str:
            return control.sub(lambda match: match.group()[0] + mark + match.group()[1:], text)

        return _mapped(messages, split), _mapped(tools, split), mark
    except RecursionError:
        raise DataError("a conversation is nested too deeply") from None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_mapped(key, change): _mapped(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(item, change) for item in value]
    return value
