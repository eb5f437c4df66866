"""Whether what a program gave is what was expected.

    int        the same int; no bool (True is not 1) and no float (3.0 is not 3)
    float      an int or float within 1e-6 relative or 1e-9; nan is nan
    list       a list or tuple, element by element: JSON has one word for both
    dict, set  without order, keys and members by type and value, exactly
    others     the same type and value
    output     the same lines but for white space at their ends and empty lines at the end

Values are plain: what a program gives is read from JSON, so no method of its own can answer here.
"""

import math
from typing import Any

RELATIVE, ABSOLUTE = 1e-6, 1e-9


def equal(got: Any, wanted: Any) -> bool:
    """Whether a value that a program gave is the expected one; see the head of this file."""
    try:
        return _equal(got, wanted)
    except RecursionError:
        return False


def _equal(got: Any, wanted: Any) -> bool:
    if type(wanted) is float:
        if type(got) is int and abs(got) > 1 << 1000:  # beyond every float
            return False
        if type(got) not in (int, float):
            return False
        is_near = math.isclose(got, wanted, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
        return is_near or (math.isnan(wanted) and math.isnan(got))
    if type(wanted) in (list, tuple):
        return (
            type(got) in (list, tuple)
            and len(got) == len(wanted)
            and all(_equal(*pair) for pair in zip(got, wanted))
        )
    if type(wanted) is dict:
        if type(got) is not dict or len(got) != len(wanted):
            return False
        values = {_typed(key): value for key, value in got.items()}
        keys = [_typed(key) for key in wanted]
        return all(
            key in values and _equal(values[key], value)
            for key, value in zip(keys, wanted.values())
        )
    if isinstance(wanted, set | frozenset):
        return isinstance(got, set | frozenset) and _typed(got) == _typed(wanted)
    return type(got) is type(wanted) and got == wanted


def _typed(value: Any) -> Any:
    """A key or member with its type beside it, so that True is not 1."""
    if isinstance(value, tuple | list):
        return "sequence", tuple(map(_typed, value))
    if isinstance(value, set | frozenset):
        return "set", frozenset(map(_typed, value))
    return type(value).__name__, value


def same_output(got: bytes, wanted: str) -> bool:
    """Whether what a program printed is what was expected, line by line."""
    return _lines(got.decode(errors="replace")) == _lines(wanted)


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.rstrip().split("\n")]
    return [] if lines == [""] else lines
