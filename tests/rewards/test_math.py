"""Mathematical answers: verdicts, what is refused, hostile expressions, and the processes that judge."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from endonym.rewards import math_pool
from endonym.rewards.base import is_failed
from endonym.rewards.math import Math, answer_of, plain, tower, value_of, verdicts, why_refused
from endonym.rewards.math_pool import Pool, Worker
from endonym.rewards.units import split_unit


@pytest.fixture(scope="module")
def pool():
    pool = Pool(size=2, cpu_seconds=0.5)
    yield pool
    pool.close()


def one(reply, gold, language="", question=""):
    return verdicts([(reply, gold, language, question)])[0]


EQUAL = [
    (r"\boxed{42}", "42", ""),
    (r"\boxed{๔๒}", "42", "th"),
    (r"\boxed{４２}", "42", "ko"),
    (r"\boxed{42 บาท}", "42", "th"),
    (r"\boxed{1,250}", "1250", ""),
    (r"\boxed{1\,250}", "1250", ""),
    (r"\boxed{2.5\times 10^{3}}", "2500", ""),
    (r"\boxed{3\frac{1}{2}}", "3.5", ""),
    (r"\boxed{50\%}", "0.5", ""),
    (r"\boxed{50\%}", "50", ""),
    (r"\boxed{0.5}", r"50\%", ""),
    (r"\boxed{\frac 1 2 x}", "x/2", ""),
    ("รวมเป็นเงิน18บาทครับ", "18", "th"),
    (r"\boxed{ดี}", "ดี", "th"),
    (r"\boxed{0.333333}", r"\frac{1}{3}", ""),
    (r"\boxed{x = 5}", "5", ""),
    (r"\boxed{2\sqrt{3}}", r"\sqrt{12}", ""),
    (r"\boxed{2\sqrt{3}입니다}", r"\sqrt{12}", "ko"),
    (r"\boxed{(x-1)(x+1)}", "x^2-1", ""),
    (r"\boxed{\{2, 1\}}", r"\{1, 2\}", ""),
    (r"\boxed{{2,1}}", r"\{1,2\}", ""),
    (r"\boxed{(-\infty, 3)}", r"(-\infty,3)", ""),
    (r"\boxed{y=2x+3}", "y=3+2x", ""),
    (r"\boxed{5\text{ km}}", r"5\text{ kilometers}", "en"),
    (r"\boxed{30^\circ}", "30", ""),
    (r"first \boxed{3}, so the answer is \boxed{4}", "4", ""),
    ("คำตอบคือ 18 บาทครับ", "18", "th"),
    ("정답은 3시간입니다.", "3", "ko"),
    ("She sold 16 - 3 - 4 = 9 eggs.\nShe makes 18 dollars.", "18", "en"),
    (r"Hence the area is $2\pi$.", r"2\pi", "en"),
    ("#### 72", "72", "en"),
    ("<think>maybe 3</think>4", "4", ""),
    (r"\boxed{2^{10000}}", "4^{5000}", ""),
]
DIFFERENT = [
    (r"\boxed{41}", "42", ""),
    (r"\boxed{2+3}", "5", ""),  # math-verify: equal
    (r"\boxed{0=5}", "5", ""),  # math-verify: equal
    (r"\boxed{1=2=5}", "5", ""),
    (r"\boxed{5, 6}", "5", ""),
    (r"\boxed{\pm 5}", "5", ""),
    (r"\boxed{evas}", "save", ""),
    (r"\boxed{ีด}", "ดี", "th"),
    (r"\boxed{50\%}", "5", ""),
    (r"\boxed{5\text{ km}}", r"5\text{ m}", "en"),
    (r"\boxed{4}, \boxed{5}", "5", ""),
    (r"\boxed{1} a \boxed{2} b \boxed{3} c \boxed{4}", "4", ""),
    (r"\boxed{x+1}", "x+2", ""),
    (r"\boxed{[1,2]}", "(1,2)", ""),
    (r"\boxed{\frac{1}{23}x}", r"\frac{12}{3}x", ""),
    ("0.33", r"\frac{1}{3}", ""),
]
UNPARSED = [
    ("", "5", ""),
    ("<think>5", "5", ""),
    (r"\boxed{}", "5", ""),
    (r"\boxed{5 \text{ or } 6}", "5", ""),
    ("I do not know.", "5", "en"),
    ("It takes 5 days or 6 hours.", "5", "en"),
    (r"\boxed{5 6}", "11x", ""),  # math-verify reads a sum: 5 + 6
    (r"\boxed{" + "9" * 201 + "}", "x", ""),
]


@pytest.mark.parametrize("reply, gold, language", EQUAL)
def test_equal(reply, gold, language):
    assert one(reply, gold, language) == "equal"


@pytest.mark.parametrize("reply, gold, language", DIFFERENT)
def test_different(reply, gold, language):
    assert one(reply, gold, language) == "different"


@pytest.mark.parametrize("reply, gold, language", UNPARSED)
def test_unparsed(reply, gold, language):
    assert one(reply, gold, language) == "unparsed"


def test_the_question_is_no_answer():
    question = r"Simplify $\sqrt{8}$."
    assert one(r"\boxed{\sqrt{8}}", r"2\sqrt{2}", "en", question) == "different"
    assert one(r"\boxed{2\sqrt{2}}", r"2\sqrt{2}", "en", question) == "equal"
    assert one(r"\boxed{\sqrt{8}}", r"2\sqrt{2}", "en") == "equal"  # asked something else


@pytest.mark.parametrize(
    "text, why",
    [
        ("9^9^9^9", "a tower of powers"),
        ("9^{9^{9^9}}", "a tower of powers"),
        ("((9^9)^9)^9", "a tower of powers"),
        ("10**10**10", "a tower of powers"),
        ("1000000!", "a large factorial"),
        ("(9!)!", "a large factorial"),
        ("9!!!", "a large factorial"),
        ("(" * 3000 + "1" + ")" * 3000, "too long"),
        ("(" * 60 + "1" + ")" * 60, "nested too deep"),
        ("9" * 201, "too many digits"),
        ("x^" * 60 + "x", "too many powers"),
        ("5$, $6", "more than one expression"),
        ("e^{-x^2}", ""),
        ("(x+1)^2", ""),
        ("2^{100000}", ""),
        ("10!", ""),
        (r"\frac{1}{2}" * 20, ""),
    ],
)
def test_what_only_burns_time_is_refused(text, why):
    assert why_refused(text) == why


def test_towers():
    assert [tower(each) for each in ("x", "2^3", "2^3^4", "2^{3^{4^5}}", "x^{y^z}")] == [
        0,
        1,
        2,
        3,
        0,
    ]


def test_values_leave_nothing_to_compute():
    for text in ("2+3", r"\sqrt{4}", "2^3", "3!", "", "1/0", "5x"):
        assert value_of(text) is None, text
    assert value_of("-3 1/2") == value_of("-7/2") == value_of("x = -3.5")


def test_the_answer_is_found_in_the_last_place_that_gives_it():
    assert answer_of("The answer is 5.\nI hope that helps.", "en") == "5."
    assert answer_of("one\n\n7", "") == "7"
    assert answer_of(r"\boxed{1} or \boxed{2}", "") is None


def test_units_of_three_languages():
    cases = [
        ("25 กิโลเมตร", "th", "25", "kilometer"),
        ("1,250 บาท", "th", "1,250", "THB"),
        ("5,000원", "ko", "5,000", "KRW"),
        ("3 시간", "ko", "3", "hour"),
        (r"3\text{ km}", "en", "3", "kilometer"),
        ("$5", "en", "5", "USD"),
        (r"2\text{ m}^2", "en", "2", "square-meter"),
        ("5m", "en", "5m", ""),  # five times m
        ("5 m", "en", "5", "meter"),
        ("km", "en", "km", ""),
    ]
    for text, language, bare, unit in cases:
        assert split_unit(text, language) == (bare, unit)
    assert plain("$\\left(1, 2\\right)$.", "en") == ("(1, 2)", "")


HOSTILE = [
    "9^{9^{9^{9}}}",
    "10^{10^{10}}",
    "1000000!",
    r"\binom{1000000}{500000}",
    "(" * 3000 + "1" + ")" * 3000,
    r"\sqrt{" * 500 + "2" + "}" * 500,
    "(x^{99999}+1)^{99999}",
    r"\sum_{k=1}^{10^9} k^k",
    r"\int_0^1 e^{x^{x^x}} dx",
    "x" * 20_000,
    "\x00\ud800",
]


def test_hostile_expressions_end_and_the_next_is_judged(pool):
    """Given to the workers as they are, past why_refused()."""
    for hostile in HOSTILE:
        [word] = pool.verdicts([("x+5", hostile)])
        assert word in ("different", "unparsed", "timeout")
        assert pool.verdicts([(r"\sqrt{12}", r"2\sqrt{3}")]) == ["equal"]
    assert {pool.verdicts([("x+5", each)])[0] for each in HOSTILE[:5]} & {"timeout"}


def test_huge_replies_cost_little_before_the_workers():
    for reply in (
        "\\boxed{" * 50_000,
        "\\boxed{" * 50_000 + "}" * 50_000,
        "\\(" * 100_000,
        "$" * 200_000,
        "the answer is " * 20_000,
        "(" * 200_000,
        "\n" * 200_000,
        "9" * 200_000,
    ):
        assert one(reply, "x+5", "en") in ("different", "unparsed")


def test_the_reward_counts_verdicts():
    reward = Math()
    replies = [r"\boxed{5}", r"\boxed{6}", "?", r"\boxed{9^{9^{9}}}", "no gold"]
    golds = ["5", "5", "5", "x", None]
    assert reward(["q"] * 5, replies, answer=golds) == [1.0, 0.0, 0.0, 0.0, None]
    assert reward.counts == {"equal": 1, "different": 1, "unparsed": 2}
    assert reward.described() == {"verdicts": dict(reward.counts), "many_timeouts": False}
    assert reward.__name__ == "math"


def test_many_threads_may_ask(pool):
    pairs = [(r"\sqrt{12}", r"2\sqrt{3}"), ("x", "y")] * 5
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(pool.verdicts(pairs))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["equal", "different"] * 5] * 6


def test_a_killed_worker_is_replaced(pool):
    pool.verdicts([("x", "y")] * 4)
    workers = [worker for worker in pool.idle.queue if worker is not None]
    for worker in workers:
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    assert pool.verdicts([(r"\sqrt{12}", r"2\sqrt{3}")] * 4) == ["equal"] * 4
    alive = [worker for worker in pool.idle.queue if worker and worker.process.poll() is None]
    assert 1 <= len(alive) <= pool.size and not set(workers) & set(alive)


def test_no_worker_is_failed_not_zero(monkeypatch):
    def broken(cpu_seconds):
        raise OSError("no more processes")

    monkeypatch.setattr(math_pool, "Worker", broken)
    monkeypatch.setattr(math_pool, "_POOL", [Pool(size=1)])
    reward = Math()
    [value] = reward([""], [r"\boxed{2\sqrt{3}}"], answer=[r"\sqrt{12}"])
    assert is_failed(value) and reward.counts == {"failed": 1}


def test_a_worker_prints_nothing_but_verdicts():
    worker = Worker(cpu_seconds=1.0)
    try:
        if os.path.isdir("/proc/self"):  # what a library prints goes nowhere
            assert os.readlink(f"/proc/{worker.process.pid}/fd/1") == os.devnull
        for _ in range(3):
            assert worker.ask(r"\frac{1}{2}", "\\text{equal}\n equal") in ("different", "unparsed")
            assert worker.ask(r"\sqrt{12}", r"2\sqrt{3}") == "equal"
    finally:
        worker.kill()
    assert worker.process.poll() is not None


def descendants(group: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            fields = open(f"/proc/{entry}/stat").read().rpartition(")")[2].split()  # noqa: SIM115
        except (OSError, ValueError):
            continue
        if entry.isdigit() and int(fields[3]) == group and fields[0] != "Z":
            found.append(int(entry))
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc")
@pytest.mark.parametrize("ending", ["exit", "kill", "kill while busy"])
def test_no_worker_outlives_its_parent(ending):
    program = textwrap.dedent(
        r"""
        import sys, time, threading
        from endonym.rewards import math_pool
        math_pool._POOL.append(math_pool.Pool(size=1))
        math_pool.verdicts([("x", "y")])
        print(*[w.process.pid for w in math_pool._POOL[0].idle.queue if w], flush=True)
        if sys.argv[1] == "kill while busy":
            ask = lambda: math_pool.verdicts([("x", r"\binom{1000000}{500000}")] * 2)
            threading.Thread(target=ask).start()
            time.sleep(0.2)
        if sys.argv[1] != "exit":
            print("ready", flush=True)
            time.sleep(60)
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, ending], stdout=subprocess.PIPE, text=True
    )
    workers = list(map(int, parent.stdout.readline().split()))
    assert workers
    if ending != "exit":
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while any(map(descendants, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(descendants, workers))


def test_a_forked_child_has_workers_of_its_own():
    math_pool.verdicts([("x", "y")])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        math_pool._POOL.append(Pool(size=1))
        word = math_pool.verdicts([(r"\sqrt{12}", r"2\sqrt{3}")])[0]
        os.write(writer, word.encode())
        math_pool._close()
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"equal"
    os.close(reader)
    assert math_pool.verdicts([(r"\sqrt{12}", r"2\sqrt{3}")]) == ["equal"]
