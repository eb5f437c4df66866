"""What a world must offer for a model to act in it: a start, an answer to each turn, a verdict.

    state, messages = environment.reset(prompt, seed)       what the model is shown first
    told, done      = environment.step(state, message)      after each of its turns
    reward          = environment.reward(state, messages)   when the episode is over
    facts           = environment.check(state)              what became of the world

A library of statutes (rollouts/library.py) hardly has a state; a shop with a stock and orders has.
One environment serves many episodes at once: all that an episode changes lies in its `state`.
"""

import json
from collections.abc import Callable
from typing import Any, Protocol

from endonym.data.document import Messages, Prompt


class Environment(Protocol):
    tools: list[dict[str, Any]]
    """OpenAI's function JSON: {"type": "function", "function": {"name", "description", "parameters"}}."""

    def reset(self, prompt: Prompt, seed: int) -> tuple[Any, Messages]:
        """(state, messages): a fresh world, and what the model is shown, most often the prompt's own
        messages. What is random in the world depends on `seed` alone."""
        ...

    def step(self, state: Any, message: dict[str, Any]) -> tuple[Messages, bool]:
        """(messages, whether the episode is over) after an assistant's message.

        Each of message["tool_calls"] is answered by one message of role "tool" with its tool_call_id,
        in any order; after them a user's message may follow (a simulated user). The calls name known
        tools and their arguments fit the tools' schemas (rollouts/agent.py has seen to that). A message
        without calls is the model's last word where nobody answers it: ([], True).
        """
        ...

    def reward(self, state: Any, messages: Messages) -> float | None:
        """Of the whole episode, once; None leaves it to the rewards of the training run."""
        ...

    def check(self, state: Any) -> dict[str, Any]:
        """What a test of the world's state looks at, plain JSON."""
        ...


def function_tool(
    name: str, description: str, properties: dict[str, Any], required: list[str]
) -> dict[str, Any]:
    """A tool in OpenAI's function JSON."""
    parameters = {"type": "object", "properties": properties, "required": required}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def tool_message(call: dict[str, Any], content: Any) -> dict[str, Any]:
    """The answer to a call; what is not a string is written as JSON."""
    if not isinstance(content, str):
        content = json.dumps(content, ensure_ascii=False)
    name = call["function"]["name"]
    return {"role": "tool", "tool_call_id": call["id"], "name": name, "content": content}


def misfit(tools: list[dict[str, Any]], call: dict[str, Any]) -> dict[str, Any] | None:
    """Why a call cannot be made, as a tool would say it; None where it can.

    Read of a schema: properties, required, type, enum and items; other keywords are the tool's own
    affair. What the model wrote is quoted only where it is known to be short.
    """
    known = {tool["function"]["name"]: tool["function"] for tool in tools}
    function = known.get(call["function"]["name"])
    if function is None:
        return {"error": "unknown tool", "tools": list(known)}
    arguments = call["function"]["arguments"]
    schema = function.get("parameters") or {}
    properties = schema.get("properties", {})
    missing = [name for name in schema.get("required", []) if name not in arguments]
    if missing:
        return {"error": "missing argument", "argument": missing[0]}
    if any(name not in properties for name in arguments):
        return {"error": "unknown argument", "arguments": list(properties)}
    for name, value in arguments.items():
        wanted = _unlike(value, properties[name])
        if wanted:
            return {"error": "wrong argument", "argument": name, "wanted": wanted}
    return None


TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}


def _unlike(value: Any, schema: dict[str, Any]) -> str:
    """What the schema wants instead of the value; "" where the value will do."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(TYPES[kind](value) for kind in kinds):
        return " or ".join(kinds)
    if "enum" in schema and value not in schema["enum"]:
        return f"one of {json.dumps(schema['enum'], ensure_ascii=False)}"
    if isinstance(value, list) and "items" in schema:
        inner = next((found for each in value if (found := _unlike(each, schema["items"]))), "")
        return f"array of {inner}" if inner else ""
    return ""
