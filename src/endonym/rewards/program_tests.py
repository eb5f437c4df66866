"""Tests of a program, as data: what it is given and what must come of it.

    {"function": "f", "args": [1, 2], "expected": 3}     "assert f(1, 2) == 3"
    {"stdin": "1 2\\n", "stdout": "3\\n"}
    {"inputs": [...], "outputs": [...], "fn_name": "f"}  as APPS, TACO and PRIME have them: all at once

An assertion is not run but read: its call goes to the program, its right side stays here.
"""

import ast
import json
from dataclasses import dataclass
from typing import Any

from endonym.core.errors import DataError


@dataclass(frozen=True)
class Call:
    """A function of the program, and what it must give for these arguments."""

    function: str
    arguments: list
    expected: Any


@dataclass(frozen=True)
class Stream:
    """What the program must print for this standard input."""

    stdin: str
    stdout: str


def read_tests(given: Any) -> list[Call | Stream]:
    """Tests in any of the forms at the head of this file, or their JSON; DataError if they are none."""
    if isinstance(given, str) and not given.lstrip().startswith("assert"):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise DataError("tests of a program are no JSON", got=given[:80]) from error
    if isinstance(given, dict) and {"inputs", "outputs"} <= set(given):
        tests = _apps(given)
    else:
        tests = [_test(one) for one in (given if isinstance(given, list) else [given])]
    if not tests:
        raise DataError("a program without tests cannot be judged")
    return tests


def _test(given: Any) -> Call | Stream:
    if isinstance(given, Call | Stream):
        return given
    if isinstance(given, str):
        return _assertion(given)
    keys = set(given) if isinstance(given, dict) else set()
    # Tables of tests fill the keys that a row does not use with None.
    if {"function", "args", "expected"} <= keys and given["function"] is not None:
        return Call(given["function"], list(given["args"]), given["expected"])
    if {"stdin", "stdout"} <= keys and isinstance(given["stdin"], str):
        return Stream(given["stdin"], given["stdout"])
    raise DataError(
        "not a test of a program",
        wanted='{"function", "args", "expected"}, {"stdin", "stdout"} or "assert f(...) == ..."',
        got=repr(given)[:120],
    )


def _assertion(text: str) -> Call:
    """assert f(literals) == literal. The call runs inside, the comparison here."""
    try:
        ((statement),) = ast.parse(text.strip()).body
        compared = statement.test
        operator, right = compared.ops[0], compared.comparators[0]
        call = compared.left
        if len(compared.ops) != 1 or not isinstance(operator, ast.Eq) or call.keywords:
            raise ValueError("not one ==, or keywords")
        arguments = [ast.literal_eval(one) for one in call.args]
        json.dumps(arguments)
        return Call(call.func.id, arguments, ast.literal_eval(right))
    except (ValueError, TypeError, SyntaxError, AttributeError, RecursionError) as error:
        raise DataError(
            "an assertion that cannot be judged without trusting the program",
            wanted="assert f(literals that JSON can hold) == literal",
            got=text[:120],
        ) from error


def _apps(given: dict) -> list[Call | Stream]:
    inputs, outputs, name = given["inputs"], given["outputs"], given.get("fn_name")
    if len(inputs) != len(outputs):
        raise DataError(
            "tests with other inputs than outputs", wanted=len(inputs), got=len(outputs)
        )
    if name is None:
        return [Stream(one, out) for one, out in zip(inputs, outputs)]
    # A text holds JSON, for the inputs a line an argument; anything else is the values themselves.
    try:
        return [
            Call(
                name,
                [json.loads(line) for line in one.splitlines()]
                if isinstance(one, str)
                else list(one),
                json.loads(out) if isinstance(one, str) and isinstance(out, str) else out,
            )
            for one, out in zip(inputs, outputs)
        ]
    except ValueError as error:
        raise DataError(
            "arguments or results of a test are no JSON", got=str(inputs)[:120]
        ) from error
