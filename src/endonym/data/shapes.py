"""The shapes in which a raw row may come, and the one in which it goes on; or why it cannot."""

import ast
import json
import re
from typing import Any

from endonym.tokenizer.messages import ROLES, THOUGHTS, split_thoughts

SPEAKERS = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "ipython": "tool",
} | {role: role for role in ROLES}
KEPT = ("role", "content", "tool_calls", "tool_call_id", "name", "reasoning_content")
FORBIDDEN = re.compile("[\x00\ud800-\udfff]")


class Unusable(Exception):
    """A row cannot be used; `reason` is written into the quarantine."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


def as_text(row: dict[str, Any]) -> str:
    """The text of a {text} row."""
    if "text" not in row:
        raise Unusable(f"no text (keys: {', '.join(map(str, list(row)[:6]))})")
    text = _string(row["text"], "text")
    if not text.strip():
        raise Unusable("empty text")
    return text


def as_messages(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversation of a row in any of the shapes, checked: known roles, no empty answer."""
    if row.get("messages") is not None:
        messages = _listed(row["messages"], "messages")
    elif row.get("conversations") is not None:
        messages = [_sharegpt(turn) for turn in _listed(row["conversations"], "conversations")]
        if isinstance(row.get("system"), str) and row["system"].strip():
            messages.insert(0, {"role": "system", "content": row["system"]})
    elif "prompt" in row and "completion" in row:
        messages = _turns(row["prompt"], "user") + _turns(row["completion"], "assistant")
    elif "instruction" in row and "output" in row:
        messages = _alpaca(row)
    else:
        keys = ", ".join(map(str, list(row)[:6]))
        raise Unusable(f"no conversation in a known shape (keys: {keys})")
    messages = [_checked(message) for message in messages]
    if not any(message["role"] == "assistant" for message in messages):
        raise Unusable("no assistant turn")
    return messages


def _listed(value: Any, name: str) -> list:
    """A list, also where it was written into a string (as JSON, or as Python prints it)."""
    if isinstance(value, str):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(value)
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    if not isinstance(value, (list, tuple)) or not value:
        raise Unusable(f"{name} is not a list of turns")
    return list(value)


def _turns(value: Any, role: str) -> list:
    return [{"role": role, "content": value}] if isinstance(value, str) else _listed(value, role)


def _sharegpt(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise Unusable(f"a turn is not an object but {type(turn).__name__}")
    speaker = turn.get("from", turn.get("role"))
    return {
        "role": SPEAKERS.get(speaker, speaker),
        "content": turn.get("value", turn.get("content")),
    }


def _alpaca(row: dict[str, Any]) -> list[dict[str, Any]]:
    """System turn, earlier exchanges, then instruction and input as one user turn."""
    asked, given = _string(row["instruction"], "instruction"), row.get("input") or ""
    given = _string(given, "input")
    messages = []
    if isinstance(row.get("system"), str) and row["system"].strip():
        messages.append({"role": "system", "content": row["system"]})
    for exchange in row.get("history") or []:
        if not isinstance(exchange, (list, tuple)) or len(exchange) != 2:
            raise Unusable("history is not a list of pairs")
        messages += [
            {"role": "user", "content": exchange[0]},
            {"role": "assistant", "content": exchange[1]},
        ]
    asked = f"{asked}\n\n{given}" if given.strip() else asked
    answer = {"role": "assistant", "content": row["output"]}
    return [*messages, {"role": "user", "content": asked}, answer]


def _checked(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise Unusable(f"a turn is not an object but {type(message).__name__}")
    role = message.get("role")
    if role not in ROLES:
        raise Unusable(f"unknown role {role!r}")
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        content = _blocks(content)
    if content is None and calls:
        content = ""
    content = _string(content, f"{role} content")
    if role == "assistant" and not content.strip() and not calls:
        raise Unusable("empty assistant turn")
    kept = {key: message[key] for key in KEPT if message.get(key) is not None}
    kept |= {"content": content} | (_thoughts(message, content) if role == "assistant" else {})
    if FORBIDDEN.search(json.dumps(kept, ensure_ascii=False)):
        raise Unusable("lone surrogate in a turn")
    return kept


def _thoughts(message: dict[str, Any], content: str) -> dict[str, str]:
    """reasoning_content of an assistant's turn, out of its own field or of <think> in its words."""
    given = next((message[name] for name in THOUGHTS if message.get(name) is not None), None)
    if given is not None:
        return {"reasoning_content": _string(given, "reasoning_content")}
    split = split_thoughts(content)
    if not split["content"].strip() and not message.get("tool_calls"):
        return {}  # thoughts and no answer after them: left as they stand
    return split


def _blocks(content: list) -> str:
    """Text out of OpenAI's content blocks; other media cannot be read here."""
    if not all(isinstance(b, dict) and isinstance(b.get("text"), str) for b in content):
        raise Unusable("a turn holds content that is not text")
    return "".join(block["text"] for block in content)


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Unusable(f"{name} is not a string but {type(value).__name__}")
    found = FORBIDDEN.search(value)
    if found:
        kind = "NUL character" if found.group() == "\x00" else "lone surrogate"
        raise Unusable(f"{kind} in {name}")
    return value
