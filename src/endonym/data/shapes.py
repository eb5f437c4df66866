"""The shapes in which a raw row may come, and the one in which it goes on; or why it cannot.

TRL's row types, plain and conversational, with `tools`; alpaca and sharegpt as LLaMA-Factory reads
them; OpenAI's fine-tuning and preference rows. What a row means is decided by its keys alone.
"""

import ast
import json
from typing import Any

from endonym.core.errors import DataError
from endonym.data.values import FORBIDDEN, Unusable, check_json, string, weight
from endonym.tokenizer.messages import ROLES, THOUGHTS, checked, split_thoughts

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
Messages = list[dict[str, Any]]


# --- row types --------------------------------------------------------------------------------------


def as_text(row: dict[str, Any]) -> str:
    """The text of a {text} row."""
    if "text" not in row:
        raise Unusable(f"no text ({_keys(row)})")
    text = string(row["text"], "text")
    if not text.strip():
        raise Unusable("empty text")
    return text


def as_messages(row: dict[str, Any]) -> Messages:
    """The conversation of a row in any of the shapes, checked: known roles, no empty answer, and an
    assistant's turn to learn from."""
    if row.get("messages") is not None:
        messages = _listed(row["messages"], "messages")
    elif row.get("conversations") is not None:
        messages = _conversations(row)
    elif "prompt" in row and "completion" in row:
        messages = _turns(row["prompt"], "user") + _turns(row["completion"], "assistant")
    elif "instruction" in row and "output" in row:
        messages = [*_asked(row), {"role": "assistant", "content": row["output"]}]
    else:
        raise Unusable(_unknown(row, "conversation"))
    messages = _checked(messages)
    weights = [m.get("weight", 1) for m in messages if m["role"] == "assistant"]
    if not weights:
        raise Unusable("no assistant turn")
    if not any(weights):
        raise Unusable("no assistant turn is learnt: every weight is 0")
    return messages


def as_preference(row: dict[str, Any]) -> tuple[Messages, Messages, Messages]:
    """(prompt, chosen, rejected) of a preference row.

    Without a prompt of its own, the prompt is what both sides begin with: the shared first messages,
    or of plain strings the shared beginning up to its last white space (TRL cuts within a word).
    Sides that repeat the prompt, as UltraFeedback's do, are read as if it were not given.
    """
    if isinstance(row.get("input"), dict) and "preferred_output" in row:
        prompt = _listed(row["input"].get("messages"), "input.messages")
        chosen, rejected = row["preferred_output"], row.get("non_preferred_output")
    elif "chosen" not in row or "rejected" not in row:
        raise Unusable(_unknown(row, "preference"))
    else:
        chosen, rejected = row["chosen"], row["rejected"]
        prompt = _prompt(row)
    if prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        prompt, chosen, rejected = _parted(chosen, rejected)
    sides = [_checked(_side(each)) for each in (chosen, rejected)]
    prompt = None if prompt is None else _checked(prompt)
    if prompt is None or all(side[: len(prompt)] == prompt and prompt for side in sides):
        pairs = zip(*sides)
        shared = next((n for n, (a, b) in enumerate(pairs) if a != b), min(map(len, sides)))
        if not shared:
            raise Unusable("chosen and rejected share no prompt")
        prompt, sides = sides[0][:shared], [side[shared:] for side in sides]
    for name, side in zip(("chosen", "rejected"), sides):
        if not side or side[0]["role"] != "assistant" or side[-1]["role"] != "assistant":
            raise Unusable(f"{name} is no answer of the assistant")
    if prompt and prompt[-1]["role"] == "assistant":
        raise Unusable("the prompt ends with an assistant turn")
    if sides[0] == sides[1]:
        raise Unusable("chosen and rejected are the same")
    return prompt, sides[0], sides[1]


def as_labelled(row: dict[str, Any]) -> tuple[Messages, Messages, bool]:
    """(prompt, completion, label) of an unpaired preference row; of {messages, label} the last
    message is what was found good or bad."""
    if "label" in row and row.get("messages") is not None:
        *prompt, last = _listed(row["messages"], "messages")
        row = {"prompt": prompt, "completion": [last], "label": row["label"]}
    elif not {"prompt", "completion", "label"} <= row.keys():
        raise Unusable(_unknown(row, "labelled answer"))
    if not isinstance(row["label"], int) or row["label"] not in (0, 1):
        raise Unusable(f"label is not true or false but {row['label']!r:.40}")
    prompt = _checked(_turns(row["prompt"], "user"))
    completion = _checked(_turns(row["completion"], "assistant"))
    if completion[0]["role"] != "assistant" or completion[-1]["role"] != "assistant":
        raise Unusable("completion is no answer of the assistant")
    return prompt, completion, bool(row["label"])


def as_prompt(row: dict[str, Any], known: set[str]) -> tuple[Messages, dict[str, Any]]:
    """(messages, columns) of a prompt-only row: columns are its keys beside `known`, as JSON values."""
    if "prompt" not in row:
        raise Unusable(_unknown(row, "prompt"))
    messages = _checked(_turns(row["prompt"], "user"))
    if messages[-1]["role"] == "assistant":
        raise Unusable("the prompt ends with an assistant turn")
    columns = {str(key): value for key, value in row.items() if key not in {"prompt", *known}}
    for name, value in columns.items():
        check_json({name: value}, f"column {name}")
    return messages, columns


def as_tools(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The row's tools as OpenAI writes them; bare function schemas get their frame, [] without any."""
    inner = row["input"].get("tools") if isinstance(row.get("input"), dict) else None
    given = row.get("tools") or inner
    if isinstance(given, str):
        given = _object(given) if given.strip() else None
    if given is None or given == []:
        return []
    tools = []
    for tool in _listed(given, "tools", "functions"):
        tool = _object(tool)
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Unusable("a tool has no name")
        tools.append(tool if "function" in tool else {"type": "function", "function": tool})
    check_json(tools, "tools")
    return tools


def _keys(row: dict[str, Any]) -> str:
    return f"keys: {', '.join(f'{key!s:.40}' for key in list(row)[:6])}"


def _unknown(row: dict[str, Any], wanted: str) -> str:
    """Why a row is none of the wanted kind, named if it is one of another."""
    if "completions" in row and "labels" in row:
        return "a stepwise supervision row (completions, labels): no stage learns from single steps"
    if "chosen" in row and "rejected" in row:
        return f"a preference row (chosen, rejected), not a {wanted}"
    return f"no {wanted} in a known shape ({_keys(row)})"


# --- parts of rows ----------------------------------------------------------------------------------


def _listed(value: Any, name: str, of: str = "turns") -> list:
    """A list, also where it was written into a string (as JSON, or as Python prints it)."""
    if isinstance(value, str):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(value)
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    if not isinstance(value, (list, tuple)) or not value:
        raise Unusable(f"{name} is not a list of {of}")
    return list(value)


def _object(value: Any) -> Any:
    """A value, read where it was written into a string as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _turns(value: Any, role: str) -> list:
    return [{"role": role, "content": value}] if isinstance(value, str) else _listed(value, role)


def _side(value: Any) -> list:
    """chosen or rejected: a string, messages, or one message (sharegpt's form)."""
    return [value] if isinstance(value, dict) else _turns(value, "assistant")


def _prompt(row: dict[str, Any]) -> list | None:
    """The prompt that a preference row gives beside its sides, or None."""
    if row.get("prompt") is not None:  # "" and []: the sides are texts, judged by themselves
        return _turns(row["prompt"], "user") if row["prompt"] else []
    if row.get("conversations") is not None:
        return _conversations(row)
    return _asked(row) if "instruction" in row else None


def _parted(chosen: str, rejected: str) -> tuple[list, str, str]:
    """Two strings as their shared beginning, up to its last white space, and the two rests."""
    pairs = enumerate(zip(chosen, rejected))
    shared = next((n for n, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    begin = next((n for n in range(shared - 1, -1, -1) if chosen[n].isspace()), 0)
    if not chosen[:begin].strip():
        raise Unusable("chosen and rejected share no prompt")
    return [{"role": "user", "content": chosen[:begin]}], chosen[begin:], rejected[begin:]


def _conversations(row: dict[str, Any]) -> list:
    messages = [_sharegpt(turn) for turn in _listed(row["conversations"], "conversations")]
    if isinstance(row.get("system"), str) and row["system"].strip():
        messages.insert(0, {"role": "system", "content": row["system"]})
    return messages


def _sharegpt(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise Unusable(f"a turn is not an object but {type(turn).__name__}")
    speaker = turn.get("from", turn.get("role"))
    content = turn.get("value", turn.get("content"))
    known = speaker if isinstance(speaker, str) else ""
    message = {"role": SPEAKERS.get(known, speaker), "content": content}
    if known == "function_call":
        message |= {"content": "", "tool_calls": _calls(content)}
    return message | {key: turn[key] for key in ("weight", "name") if turn.get(key) is not None}


def _calls(content: Any) -> list[dict[str, Any]]:
    """The calls of a function_call turn: one as a JSON object, or several as a list of them."""
    found = _object(content)
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(c, dict) and isinstance(c.get("name"), str) for c in calls):
        raise Unusable("a function_call turn is not JSON with a name and arguments")
    return [
        {
            "type": "function",
            "function": {"name": c["name"], "arguments": _object(c.get("arguments", {}))},
        }
        for c in calls
    ]


def _asked(row: dict[str, Any]) -> list[dict[str, Any]]:
    """An alpaca row without its answer: system turn, earlier exchanges, then instruction and input
    as one user turn."""
    asked, given = string(row["instruction"], "instruction"), row.get("input") or ""
    given = string(given, "input")
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
    return [*messages, {"role": "user", "content": asked}]


# --- messages ---------------------------------------------------------------------------------------


def _checked(messages: list) -> Messages:
    """The messages with the keys that are known; whatever the tokenizer would refuse is refused here,
    where it costs a row and not a run."""
    found = [_message(message) for message in messages]
    try:
        return checked(found)
    except DataError as error:
        raise Unusable(error.what) from None


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise Unusable(f"a turn is not an object but {type(message).__name__}")
    if "from" in message and "role" not in message:
        message = _sharegpt(message)
    role = message.get("role")
    if role not in ROLES:
        raise Unusable(f"unknown role {role!r:.40}")
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(calls, str):
        message = message | {"tool_calls": (calls := _object(calls))}
    if isinstance(content, list):
        content = _blocks(content)
    if content is None and calls:
        content = ""
    content = string(content, f"{role} content")
    if role == "assistant" and not content.strip() and not calls:
        raise Unusable("empty assistant turn")
    kept = {key: message[key] for key in KEPT if message.get(key) is not None}
    kept |= {"content": content} | (_thoughts(message, content) if role == "assistant" else {})
    if message.get("weight") is not None:
        learnt = weight(message["weight"], "a turn's weight")
        kept |= {"weight": learnt} if role == "assistant" else {}  # others are never learnt
    if calls:
        check_json(calls, "tool_calls")
    if FORBIDDEN.search(json.dumps(kept, ensure_ascii=False, default=str)):
        raise Unusable("lone surrogate in a turn")
    return kept


def _thoughts(message: dict[str, Any], content: str) -> dict[str, str]:
    """reasoning_content of an assistant's turn, out of its own field or of <think> in its words."""
    given = next((message[name] for name in THOUGHTS if message.get(name) is not None), None)
    if given is not None:
        return {"reasoning_content": string(given, "reasoning_content")}
    split = split_thoughts(content)
    if not split["content"].strip() and not message.get("tool_calls"):
        return {}  # thoughts and no answer after them: left as they stand
    return split


def _blocks(content: list) -> str:
    """Text out of OpenAI's content blocks; other media cannot be read here."""
    for block in content:
        if not isinstance(block, dict) or not isinstance(block.get("text"), str):
            kind = block.get("type") if isinstance(block, dict) else type(block).__name__
            kind = "a text part without its text" if kind == "text" else kind
            raise Unusable(f"a turn holds content that is not text but {kind!s:.40}")
    return "".join(block["text"] for block in content)
