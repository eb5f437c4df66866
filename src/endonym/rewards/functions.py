"""Calls functions of an untrusted program, and brings back what they gave, never what they should.

    driver(source, calls) -> a program and its files for Sandbox.run
    outcomes(run, count)  -> one Outcome a call

The child is given the source and the arguments; what is expected stays with the caller. It writes
one JSON line a call, [number, value] or [number, null, error], on a descriptor of its own, while what
the source prints goes nowhere. The source shares the process with the driver and may forge those
lines: with that it can only say a value, which is what it was asked for. Lines are read strictly
and in order: a second line for one call, or a line that is none, spoils all calls.

Values travel as JSON; what JSON has no word for is an object of one key:

    {"tuple": [...]} {"set": [...]} {"dict": [[key, value], ...]} {"bytes": "hex"}
    {"int": "hex"} (over 4,000 digits, which decimal readers refuse) {"complex": [re, im]}

Subclasses of these types become the type itself. Other objects are an error of that call.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from endonym.core.errors import DataError

if TYPE_CHECKING:
    from endonym.rewards.program import Run

DRIVER = """
import os, sys
channel = os.dup(1)
nowhere = os.open("/dev/null", os.O_WRONLY)
os.dup2(nowhere, 1)
import importlib.util, json, math

def written(value):
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        value = int.__int__(value)
        return value if value.bit_length() < 13000 else {"int": hex(value)}
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, tuple):
        return {"tuple": [written(one) for one in tuple.__iter__(value)]}
    if isinstance(value, list):
        return [written(one) for one in list.__iter__(value)]
    if isinstance(value, (set, frozenset)):
        return {"set": [written(one) for one in value]}
    if isinstance(value, dict):
        return {"dict": [[written(key), written(one)] for key, one in dict.items(value)]}
    import collections
    if isinstance(value, (collections.deque, range, type({}.keys()), type({}.values()))):
        return [written(one) for one in value]
    raise TypeError("a value of type " + type(value).__name__ + " was returned")

def say(line):
    data = json.dumps(line).encode() + b"\\n"
    while data:
        data = data[os.write(channel, data):]

def reason(error):
    return (type(error).__name__ + ": " + str(error))[:300]

with open("calls.json", "rb") as file:
    calls = json.load(file)
candidate = failed = None
try:
    spec = importlib.util.spec_from_file_location("candidate", "/tmp/candidate.py")
    candidate = importlib.util.module_from_spec(spec)
    sys.modules["candidate"] = candidate
    spec.loader.exec_module(candidate)
except Exception as error:
    failed = reason(error)
for number, (name, arguments) in enumerate(calls):
    if failed is not None:
        say([number, None, failed])
        continue
    try:
        owner = candidate
        if not hasattr(owner, name) and hasattr(owner, "Solution"):
            owner = candidate.Solution()
        line = [number, written(getattr(owner, name)(*arguments))]
    except Exception as error:
        line = [number, None, reason(error)]
    say(line)
"""


@dataclass(frozen=True)
class Outcome:
    """What one call gave: a value, or why there is none."""

    value: Any = None
    error: str | None = None


def driver(source: str | bytes, calls: list[tuple[str, list]]) -> tuple[str, dict[str, bytes]]:
    """The program that makes the calls, and the files that it reads."""
    if isinstance(source, str):
        source = source.encode("utf-8", "surrogatepass")
    try:
        inputs = json.dumps([[name, list(arguments)] for name, arguments in calls])
    except (TypeError, ValueError) as error:
        raise DataError("arguments of a call must be what JSON can hold", got=str(error)) from error
    return DRIVER, {"candidate.py": source, "calls.json": inputs.encode()}


def outcomes(run: "Run", count: int) -> list[Outcome]:
    """One outcome a call; those that were never reached have the run's end as their error."""
    found: list[Outcome] = []
    lines = run.stdout.split(b"\n")
    for line in lines[:-1]:  # the last is empty, or was cut
        one = _outcome(line, len(found))
        if one is None or len(found) == count:
            return [Outcome(error="what came back is not one line a call")] * count
        found.append(one)
    ended = "ended early" if run.status == "ok" else run.status
    if run.status != "ok" and len(found) == count:
        # All lines are there, yet the program did not end well: at its exit, or it forged them.
        return [Outcome(error=ended)] * count
    return found + [Outcome(error=ended)] * (count - len(found))


def _outcome(line: bytes, number: int) -> Outcome | None:
    """One line, read; None where it is not the line of this call."""
    try:
        told = json.loads(line)
        if type(told) is not list or type(told[0]) is not int or told[0] != number:
            return None
        if len(told) == 3 and isinstance(told[2], str):
            return Outcome(error=told[2][:300])
        return Outcome(_value(told[1])) if len(told) == 2 else None
    except (ValueError, TypeError, IndexError, RecursionError):
        return None


def _value(told: Any) -> Any:
    if isinstance(told, list):
        return [_value(one) for one in told]
    if not isinstance(told, dict):
        return told
    ((kind, inner),) = told.items()
    if kind == "tuple":
        return tuple(_value(one) for one in inner)
    if kind == "set":
        return frozenset(_spread([_value(one) for one in inner]))
    if kind == "dict":
        return dict(zip(_spread([_value(key) for key, _ in inner]), (_value(v) for _, v in inner)))
    if kind == "bytes":
        return bytes.fromhex(inner)
    if kind == "int":
        return int(inner, 16)
    if kind == "complex":
        return complex(*inner)
    raise ValueError(kind)


def _spread(keys: list) -> list:
    """The keys as they are; ValueError where many share a hash, which would cost us minutes.

    Numbers hash to themselves, so a program can choose them such that a table of n takes n * n steps.
    """
    if len(keys) > 1000 and len({hash(key) for key in keys}) < len(keys) / 2:
        raise ValueError("keys that collide")
    return keys
