"""Values of raw rows that can be used, written and read again; or why they cannot."""

import math
import re
import sys
from typing import Any

FORBIDDEN = re.compile("[\x00\ud800-\udfff]")
DEEPEST = 64
"""Objects within objects, of tools, calls and answer columns."""


class Unusable(Exception):
    """A row cannot be used; `reason` is written into the quarantine."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


def number(value: Any, name: str) -> float:
    """A finite number; an integer that no float reaches is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:
        raise Unusable(f"{name} is not a number but {value!r:.40}")
    return float(value)


def weight(value: Any, name: str = "weight") -> float:
    """A number of at least 0."""
    found = number(value, name)
    if found < 0:
        raise Unusable(f"{name} is below 0: {found:g}")
    return found


def string(value: Any, name: str) -> str:
    """A string that can be written as UTF-8 and holds no NUL."""
    if not isinstance(value, str):
        raise Unusable(f"{name} is not a string but {type(value).__name__}")
    found = FORBIDDEN.search(value)
    if found:
        kind = "NUL character" if found.group() == "\x00" else "lone surrogate"
        raise Unusable(f"{kind} in {name}")
    return value


def check_json(value: Any, name: str) -> None:
    """That a nested value can be written as JSON and read again."""
    open_values = [(value, 0)]
    while open_values:
        inner, depth = open_values.pop()
        if depth > DEEPEST:
            raise Unusable(f"{name}: nested more than {DEEPEST} deep")
        if isinstance(inner, dict):
            open_values += [(key, depth) for key in inner]
            open_values += [(each, depth + 1) for each in inner.values()]
        elif isinstance(inner, list | tuple):
            open_values += [(each, depth + 1) for each in inner]
        elif isinstance(inner, str):
            string(inner, name)
        elif isinstance(inner, float) and not math.isfinite(inner):
            raise Unusable(f"{name} holds a number that JSON does not know")
        elif not isinstance(inner, int | float | None):
            raise Unusable(f"{name} holds a value that JSON does not know: {type(inner).__name__}")
