"""Code as a reward: what is read from a reply, what equals what, and that no cheat is paid."""

import json
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.cheats import (
    CALL_CHEATS,
    HONEST_SQUARE,
    HONEST_TOTAL,
    SQUARE,
    STREAM_CHEATS,
    TOTAL,
)
from benchmarks.honest import solutions

from endonym.core.errors import DataError, MachineError
from endonym.rewards import bubblewrap
from endonym.rewards.base import is_failed
from endonym.rewards.code import Code, code, extract, grade
from endonym.rewards.equality import equal, same_output
from endonym.rewards.functions import Outcome, driver, outcomes
from endonym.rewards.program_tests import Call, Stream, read_tests
from endonym.rewards.sandbox import Run

HONEST = list(solutions())


@pytest.mark.parametrize(
    "reply, program",
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("first\n```py\na\n```\nthen\n```\nb\n```\n", "b\n"),
        ("```python\na\n```\nwhich prints\n```text\n3\n```", "a\n"),
        ("```python\na\n```\n```python\ncut off", "a\n"),
        ("~~~~ Python title='x'\na\n~~~\nb\n~~~~", "a\n~~~\nb\n"),
        ("   ```python3\n   x\n   ```", "   x\n"),
        ("x = 1", None),
        ("```python\nx", None),
        ("```python\n```", "\n"),
        ("```python\n" + "x" * 200_000 + "\n```", None),
    ],
)
def test_the_program_of_a_reply(reply, program):
    assert extract(reply) == program


@pytest.mark.parametrize(
    "got, wanted",
    [
        (3, 3),
        (-0.0, 0.0),
        (3, 3.0),  # a float was expected, and an int is one
        (0.1 + 0.2, 0.3),
        (1e12 + 1, 1e12),
        (math.nan, math.nan),
        (math.inf, math.inf),
        ((1, [2]), [1, (2,)]),
        ({"a": 1, "b": [2.0]}, {"b": [2.0], "a": 1}),
        ({1: "x", (1, 2): None}, {(1, 2): None, 1: "x"}),
        (frozenset({1, "1"}), {"1", 1}),
        (None, None),
        ("ก", "ก"),
        (2**5000, 2**5000),
    ],
)
def test_equal(got, wanted):
    assert equal(got, wanted)


def deep(n: int) -> list:
    value: list = []
    for _ in range(n):
        value = [value]
    return value


@pytest.mark.parametrize(
    "got, wanted",
    [
        (True, 1),
        (1, True),
        (0, False),
        (3.0, 3),
        ("3", 3),
        (None, False),
        (1.00001, 1.0),
        (math.nan, 1.0),
        (math.inf, -math.inf),
        (math.inf, 1e308),
        (True, 1.0),
        (10**400, 1.0),
        (-(10**400), math.inf),
        ([1], [1, 2]),
        ([1, True], [1, 1]),
        ({1: 2}, {"1": 2}),
        ({True: 2}, {1: 2}),
        ({"a": 1, "b": 2}, {"a": 1}),
        (frozenset({1}), {True}),
        ([1], {1}),
        ("ab", ["a", "b"]),
        (b"a", "a"),
        (deep(5000), deep(5000)),  # deeper than any honest value: refused, never a crash
    ],
)
def test_different(got, wanted):
    assert not equal(got, wanted)


def test_output_is_compared_by_lines():
    assert same_output(b"1  \r\n2\n\n", "1\n2")
    assert same_output(b"", "\n") and same_output("ไทย\n".encode(), "ไทย")
    assert not same_output(b"1 2", "1\n2")
    assert not same_output(b" 1", "1")
    assert not same_output(b"1\n\n2", "1\n2")
    assert not same_output(b"\xff", "")


def test_forms_of_tests():
    call, stream = Call("f", [1, "a"], [2]), Stream("1\n", "2\n")
    forms = [
        [{"function": "f", "args": [1, "a"], "expected": [2]}, {"stdin": "1\n", "stdout": "2\n"}],
        [
            {"function": "f", "args": [1, "a"], "expected": [2], "stdin": None, "stdout": None},
            {"function": None, "args": None, "expected": None, "stdin": "1\n", "stdout": "2\n"},
        ],
        ["assert f(1, 'a') == [2]", stream],
    ]
    for form in forms:
        assert read_tests(form) == [call, stream]
    assert read_tests(json.dumps(forms[0])) == [call, stream]
    assert read_tests("assert f(1, 'a') == [2]") == [call]
    assert read_tests({"inputs": ["1\n"], "outputs": ["2\n"]}) == [stream]
    apps = {"fn_name": "f", "inputs": [[1, "a"]], "outputs": [[2]]}
    assert read_tests(apps) == [call]
    lines = {"fn_name": "f", "inputs": ['1\n"a"'], "outputs": ["[2]"]}
    assert read_tests(json.dumps(lines)) == [call]


@pytest.mark.parametrize(
    "tests",
    [
        [],
        "no JSON",
        [{"function": "f"}],
        [{"stdin": 1, "stdout": "2"}],
        ["assert f(1)"],
        ["assert f(x) == 1"],
        ["assert f(1) == 1 == 1"],
        ["assert f(n=1) == 1"],
        ["assert f({1, 2}) == 1"],  # JSON has no sets
        ["import os"],
        {"inputs": ["1"], "outputs": []},
        {"fn_name": "f", "inputs": ["x"], "outputs": ["1"]},
    ],
)
def test_what_is_no_test_is_an_error(tests):
    with pytest.raises(DataError):
        read_tests(tests)


def told(*lines: bytes, status: str = "ok") -> list[Outcome]:
    return outcomes(Run(b"".join(line + b"\n" for line in lines), b"", status, 0.0, 0), 2)


def test_lines_of_the_driver_are_read_strictly():
    assert told(b"[0, 1]", b'[1, null, "no"]') == [Outcome(1), Outcome(error="no")]
    kinds = b'[0, {"tuple": [{"int": "0xff"}, {"bytes": "00"}, {"set": [1]}, {"complex": [1, 2]}]}]'
    assert told(kinds, b'[1, {"dict": [[{"tuple": [1]}, true]]}]') == [
        Outcome((255, b"\0", frozenset({1}), 1 + 2j)),
        Outcome({(1,): True}),
    ]
    assert told(b"[0, 1]") == [Outcome(1), Outcome(error="ended early")]
    assert told(b"[0, 1]", status="timeout") == [Outcome(1), Outcome(error="timeout")]
    for spoilt in (
        (b"[0, 1]", b"[0, 1]"),
        (b"[1, 1]", b"[0, 1]"),
        (b"[0, 1]", b"[1, 1]", b"[2, 1]"),
        (b"passed", b"[1, 1]"),
        (b"[true, 1]", b"[1, 1]"),
        (b"[0.0, 1]", b"[1, 1]"),
        (b"[]",),
        (b"[0]",),
        (b'{"0": 1}',),
        (b'[0, {"other": 1}]',),
        (b'[0, {"set": [1], "int": "1"}]',),
        (b'[0, {"set": [[1]]}]',),
        (b'[0, {"int": 5}]',),
        (b"[0, " + b"[" * 10**6 + b"]" * 10**6 + b"]",),
        (b"[0, " + b"9" * 10**6 + b"]",),
        (b'[0, "\xff"]',),
        (b'[0, {"set": [' + b",".join(b"%d" % (k * (2**61 - 1)) for k in range(30000)) + b"]}]",),
    ):
        assert all(one.error for one in told(*spoilt)), spoilt[0][:80]
    # All lines, but the program did not end well: it may have left after forging them.
    assert all(one.error == "error" for one in told(b"[0, 1]", b"[1, 1]", status="error"))


def test_only_inputs_are_handed_over():
    program, files = driver("def f(): pass", [("f", [1])])
    assert json.loads(files["calls.json"]) == [["f", [1]]] and set(files) == {
        "calls.json",
        "candidate.py",
    }
    assert "expected" not in program
    with pytest.raises(DataError, match="JSON"):
        driver("", [("f", [{1}])])


def test_values_come_back_as_they_are(sandbox):
    source = (
        "import collections, enum\nclass Color(enum.IntEnum):\n    RED = 4\n"
        "def f(k):\n    print('noise')\n    return [None, True, 2**70000, 0.1, 'ก\\n', b'\\x00', 1j, (1,),\n"
        "        [[]], {1}, {1: {'a': ()}}, collections.deque([1]), range(2), Color.RED,\n"
        "        float('-inf')][k]\n"
        "def g(k):\n    return object()\n"
        "def h(k):\n    x = []\n    x.append(x)\n    return x\n"
    )
    wanted = [
        None,
        True,
        2**70000,
        0.1,
        "ก\n",
        b"\0",
        1j,
        (1,),
        [[]],
        {1},
        {1: {"a": ()}},
        [1],
        [0, 1],
        4,
    ]
    calls = [("f", [k]) for k in range(15)] + [("g", [0]), ("h", [0]), ("nothing", []), ("f", [99])]
    found = sandbox.call_many(source, calls)
    for one, value in zip(found, wanted):
        assert one.error is None and one.value == value and equal(one.value, value)
    assert found[14].value == -math.inf
    errors = [one.error.split(":")[0] for one in found[15:]]
    assert errors == ["TypeError", "RecursionError", "AttributeError", "IndexError"]


@pytest.mark.parametrize("cheat", [*CALL_CHEATS, *STREAM_CHEATS])
def test_no_cheat_is_paid(sandbox, cheat):
    source, tests = (
        (CALL_CHEATS[cheat], SQUARE) if cheat in CALL_CHEATS else (STREAM_CHEATS[cheat], TOTAL)
    )
    found = grade(source, read_tests(tests), sandbox, cpu_seconds=0.4)
    assert len(found.reasons) == len(tests) and found.share < 1.0
    assert found.share == 0.0, found  # no part of the tests either


def test_there_are_enough_of_both():
    assert len(CALL_CHEATS) + len(STREAM_CHEATS) >= 20 and len(HONEST) >= 200


def test_honest_programs_are_paid(sandbox):
    """One dress or another of every function; all of them: python -m benchmarks sandbox."""
    chosen = HONEST[::7]
    found = sandbox.map(lambda each: grade(each[1], read_tests(each[2]), sandbox), chosen)
    assert [(name, one.reasons) for (name, _, _), one in zip(chosen, found) if one.share < 1] == []
    for source, tests in ((HONEST_SQUARE, SQUARE), (HONEST_TOTAL, TOTAL)):
        assert grade(source, read_tests(tests), sandbox, twice=True).share == 1.0


def test_a_share_and_all_or_nothing(sandbox):
    half = "def square(n):\n    return n * n if n < 20 else 0\n"
    found = grade(half, read_tests(SQUARE), sandbox)
    assert found.reasons == ["equal", "equal", "different", "different"] and found.share == 0.5
    late = "def square(n):\n    while n > 12:\n        pass\n    return n * n\n"
    found = grade(late, read_tests(SQUARE), sandbox, cpu_seconds=0.2)
    assert found.reasons == ["equal", "equal", "timeout", "timeout"]
    some = "a, b = map(int, input().split())\nprint(a + b if a < 50 else 0)\n"
    assert grade(some, read_tests(TOTAL[::-1]), sandbox).share == pytest.approx(2 / 3)
    brief = grade(some, read_tests(TOTAL[::-1]), sandbox, every=False)
    assert brief.reasons == ["different", "not run", "not run"]


def test_a_program_that_answers_by_chance_is_caught_by_a_second_run(sandbox):
    by_hash = "def f(a, b):\n    return [a, b][hash('x') % 2]\n"
    found = sandbox.call_many(by_hash, [("f", [0, 1])])[0].value
    other = sandbox.call_many(by_hash, [("f", [0, 1])], hash_seed=1)[0].value
    source = "def f():\n    return hash('x')\n"
    first = sandbox.call_many(source, [("f", [])])[0].value
    assert {found, other} <= {0, 1}
    assert grade(source, [Call("f", [], first)], sandbox).share == 1.0
    assert grade(source, [Call("f", [], first)], sandbox, twice=True).share == 0.0


def fenced(source: str) -> str:
    return f"<think>```python\nraise\n```</think>Here:\n```python\n{source}```\n"


def test_the_reward_in_trls_form(sandbox):
    replies = [fenced(HONEST_SQUARE), fenced("def square(n):\n    return 0\n"), "no code", "x"]
    tests = [SQUARE, json.dumps(SQUARE), SQUARE, None]
    for shape in (str, lambda text: [{"role": "assistant", "content": text}]):
        given = [shape(reply) for reply in replies]
        assert code(["q"] * 4, given, tests=tests, extra=[0] * 4) == [1.0, 0.0, 0.0, None]
    assert code(["q"], ["x"]) == [None] and code.__name__ == "code"
    share = Code(share=True)
    half = fenced("def square(n):\n    return n * n if n < 20 else 0\n")
    assert share(["q"], [half], tests=[SQUARE]) == [0.5]
    assert share.described() == {"verdicts": {"wrong": 1}}
    with pytest.raises(DataError, match="column 'tests'"):
        code(["q"] * 2, ["x"] * 2, tests=[SQUARE])


def test_a_failing_sandbox_is_never_a_zero(sandbox, monkeypatch):
    reward = Code()
    assert reward(["q"], [fenced(HONEST_SQUARE)], tests=[SQUARE]) == [1.0]
    monkeypatch.setattr(bubblewrap, "command", lambda *given, **named: ["false"])
    lost, none = reward(["q"] * 2, [fenced(HONEST_SQUARE), "no code"], tests=[SQUARE] * 2)
    assert is_failed(lost) and none == 0.0
    assert reward.described()["verdicts"] == {"right": 1, "sandbox failed": 1, "no program": 1}
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda tool, path: None)
    with pytest.raises(MachineError, match="apt install"):
        Code()(["q"], [fenced(HONEST_SQUARE)], tests=[SQUARE])
