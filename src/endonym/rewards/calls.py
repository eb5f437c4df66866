"""Whether tool calls are valid: a tool that exists, with the arguments that its schema asks for.

A call and a tool are OpenAI's JSON:

    {"type": "function", "function": {"name": "read_law", "arguments": {"law_name": "..."}}}
    {"type": "function", "function": {"name": "read_law", "parameters": {JSON schema}}}

Of JSON Schema what tools use is checked: type, required, properties, additionalProperties, items,
enum, const, anyOf. An argument that the schema does not name is an error unless it allows others.
Whether the call was wise is another reward's question.
"""

import json
from typing import Any

from endonym.rewards.base import Completion, column

TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def calls(prompts, completions: list[Completion], tools=None, **columns) -> list[float | None]:
    """The share of a completion's tool calls that are valid by `tools`; 0.0 where nothing is called.

    A call in the text that could not be read counts as one that is not valid. None where the row has
    no tools. `tools`: for each row a list of tools, or its JSON.
    """
    values: list[float | None] = []
    for completion, known in zip(completions, column("tools", tools, completions)):
        known = json.loads(known) if isinstance(known, str) else known
        if not known:
            values.append(None)
            continue
        made, malformed = calls_of(completion)
        total = len(made) + malformed
        values.append(sum(not why_invalid(c, known) for c in made) / total if total else 0.0)
    return values


def calls_of(completion: Completion) -> tuple[list[dict], int]:
    """(the calls of all assistant turns, how many more could not be read)."""
    from endonym.tokenizer.calls import parse_reply

    turns = [{"role": "assistant", "content": completion}]
    turns = turns if isinstance(completion, str) else completion
    made: list[dict] = []
    malformed = 0
    for turn in turns:
        if turn.get("role") == "assistant":
            # A parser has moved what it understood out of the content; without one it is still there.
            if "tool_calls" not in turn and "malformed" not in turn:
                turn = parse_reply(turn.get("content") or "")
            made += turn.get("tool_calls") or []
            malformed += len(turn.get("malformed") or [])
    return made, malformed


def why_invalid(call: Any, tools: list[dict]) -> str:
    """ "" if the call is valid, else the reason in a few words."""
    called = call.get("function") if isinstance(call, dict) else None
    if not isinstance(called, dict):
        return "no function in the call"
    schemas = {_function(tool)["name"]: _function(tool).get("parameters") or {} for tool in tools}
    name, arguments = called.get("name"), called.get("arguments")
    if not isinstance(name, str) or name not in schemas:
        return f"no tool {name!r}"
    if isinstance(arguments, str):  # OpenAI's wire form: JSON inside JSON
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return "arguments are no JSON"
    return mismatch(arguments, {"type": "object", **schemas[name]}, "arguments")


def _function(tool: dict) -> dict:
    return tool.get("function", tool)


def mismatch(value: Any, schema: dict, where: str) -> str:
    """ "" if a value fits a JSON schema, else the first place where it does not."""
    if "anyOf" in schema and all(mismatch(value, each, where) for each in schema["anyOf"]):
        return f"{where}: none of the allowed forms"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where}: not one of the allowed values"
    if "const" in schema and value != schema["const"]:
        return f"{where}: not the one allowed value"
    kinds = schema.get("type") or []
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return f"{where}: not {' or '.join(kinds)}"
    if isinstance(value, dict):
        return _object_mismatch(value, schema, where)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        parts = (mismatch(part, schema["items"], f"{where}[{n}]") for n, part in enumerate(value))
        return next(filter(None, parts), "")
    return ""


def _object_mismatch(value: dict, schema: dict, where: str) -> str:
    named = schema.get("properties") or {}
    others = schema.get("additionalProperties", not named)
    for key in schema.get("required") or []:
        if key not in value:
            return f"{where}: lacks {key!r}"
    for key, part in value.items():
        if key not in named and others is False:
            return f"{where}: unknown {key!r}"
        rule = named.get(key, others if isinstance(others, dict) else {})
        if wrong := mismatch(part, rule, f"{where}.{key}"):
            return wrong
    return ""


def _is(value: Any, kind: str) -> bool:
    """JSON's types: true is no number, and 2.0 is an integer."""
    if kind in ("integer", "number") and isinstance(value, bool):
        return False
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES.get(kind, ()))
