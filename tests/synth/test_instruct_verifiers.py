"""Steps 2 to 5: what a model writes to check a constraint, and which of it is believed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter

import pytest

from endonym.core.errors import DataError
from endonym.rewards.chat import Answer
from endonym.synth.instruct.back_translation import back_translated
from endonym.synth.instruct.chat import ask
from endonym.synth.instruct.cross_validation import Minimums, Verified, cross_validated
from endonym.synth.instruct.journal import Journal
from endonym.synth.instruct.running import Runner
from endonym.synth.instruct.verification import all_hold
from endonym.synth.instruct.verifiers import Candidate, checked_language, truth, views, written
from synth.scripted import Scripted, Tame

HEAD = "def evaluate(text, words, sentences):\n    "
THREE_WORDS = HEAD + "return len(words) >= 3"
ALWAYS = HEAD + "return True"
# "แมวกินปลา" is three words for newmm and one for str.split.
LONG = ["แมวกินปลา", "นกบินสูง", "ฉันไปโรงเรียน", "เขาอ่านหนังสือทุกวัน", "พ่อกับแม่"]
SHORT = ["แมว", "กินข้าว", "ปลา", "ดี", "ไป", "น้ำ"]
CASES = [(text, True) for text in LONG] + [(text, False) for text in SHORT]


def validated(functions, cases=CASES, runner=None, minimums=None):
    counts = Counter()
    candidate = Candidate("ตอบอย่างน้อยสามคำ", functions, list(cases))
    runner = runner or Runner(Tame())
    found = cross_validated([candidate], "th", runner, minimums or Minimums(), counts)
    return (found[0] if found else None), counts


def results(runner, source, inputs):
    return runner.every([(source, inputs)])[0]


def again(source: str, number: int) -> str:
    """The same function, written differently."""
    return source + f"  # {number}"


# --- step 2 --------------------------------------------------------------------------------------------


def sample(function, *cases):
    return json.dumps({"function": function, "cases": [{"text": t, "result": r} for t, r in cases]})


def asked(tmp_path, answers, samples=None):
    counts, replies = Counter(), iter(answers)
    chat = Journal(Scripted(lambda request: next(replies)), tmp_path)
    found = written(chat, "th", ["ตอบอย่างน้อยสามคำ"], samples or len(answers), 3, 0.2, 0, counts)
    return found[0], counts, chat.chat.requests


def test_functions_and_cases_are_read_out_of_json_with_words_around_it(tmp_path):
    text = "Sure!\n```json\n" + sample(THREE_WORDS, ("แมวกินปลา", True), ("แมว", False)) + "\n```"
    found, counts, requests = asked(tmp_path, [Answer(text, "stop")])
    assert found.functions == [THREE_WORDS]
    assert found.cases == [("แมวกินปลา", True), ("แมว", False)]
    assert requests[0].temperature == 0.2 and "Thai" in requests[0].messages[0]["content"]
    assert counts["functions"] == 1 and counts["cases"] == 2


def test_results_written_as_words_are_truth_values(tmp_path):
    found, counts, _ = asked(
        tmp_path,
        [Answer(sample(ALWAYS, ("ก", "true"), ("ข", " False "), ("ค", "yes"), ("ง", 1)), "stop")],
    )
    assert found.cases == [("ก", True), ("ข", False)]
    assert counts["case unreadable"] == 2
    assert truth("TRUE") is True and truth(None) is None


def test_what_cannot_be_read_is_counted_and_a_contradicted_case_goes(tmp_path):
    answers = [
        Answer("I would rather not.", "stop"),
        None,
        Answer(sample("def evaluate(text:", ("ก", True)), "stop"),
        Answer(sample("def other(text):\n    return True", ("ก", False), ("ข", True)), "stop"),
        Answer(sample(ALWAYS), "stop"),
        Answer(sample(ALWAYS), "stop"),
    ]
    found, counts, _ = asked(tmp_path, answers)
    assert found.functions == [ALWAYS] and found.cases == [("ข", True)]
    expected = {"call failed": 1, "unreadable": 1, "no function": 2, "case contradicted": 1}
    assert expected.items() <= counts.items()


def test_a_function_is_read_and_never_run_in_this_process(tmp_path):
    mark = tmp_path / "ran"
    source = f"open({str(mark)!r}, 'w')\n" + ALWAYS
    asked(tmp_path / "calls", [Answer(sample(source, ("ก", True)), "stop")])
    assert not mark.exists()


def test_words_come_as_the_language_counts_them():
    assert views("แมวกินปลา", "th")[1] == ["แมว", "กิน", "ปลา"]
    assert views("학교에 갔다", "ko")[1] == ["학교에", "갔다"]
    with pytest.raises(DataError, match="generated verifiers count words"):
        checked_language("km")


# --- step 3 --------------------------------------------------------------------------------------------


def test_three_functions_that_agree_are_kept_with_their_cases():
    found, counts = validated([again(THREE_WORDS, n) for n in range(3)])
    assert found.accuracy == [1.0, 1.0, 1.0] and found.cases == CASES
    assert counts == {
        "function fails": 0,
        "case without a function": 0,
        "function kept": 3,
        "kept": 1,
    }


def test_a_split_at_spaces_is_no_counter_of_thai():
    naive = HEAD + "return len(text.split()) >= 3"
    found, counts = validated([again(THREE_WORDS, 1), again(THREE_WORDS, 2), naive])
    assert naive not in found.functions and len(found.functions) == 2
    assert counts["function inaccurate"] == 1


def test_a_function_that_is_always_true_is_rejected_even_with_an_accuracy_of_eight_tenths():
    cases = CASES[:5] + [(text + "วันนี้", True) for text in LONG[:3]] + CASES[5:7]  # 8 true, 2 false
    found, counts = validated([THREE_WORDS, again(THREE_WORDS, 1), ALWAYS], cases)
    assert ALWAYS not in found.functions
    assert counts["function one-sided"] == 1 and counts["function inaccurate"] == 0


def test_functions_that_are_all_always_true_leave_no_negative_case_and_no_constraint():
    cases = CASES + [(text + "วันนี้", True) for text in LONG]
    found, counts = validated([again(ALWAYS, n) for n in range(3)], cases)
    assert found is None
    assert counts["case without a function"] == len(SHORT)
    assert counts["one outcome only"] == 1


def test_a_case_that_no_function_agrees_with_goes():
    found, counts = validated([again(THREE_WORDS, n) for n in range(3)], [*CASES, ("หมา", True)])
    assert ("หมา", True) not in found.cases and counts["case without a function"] == 1


@pytest.mark.parametrize(
    ("functions", "cases", "reason"),
    [
        (2, CASES, "too few functions"),
        (3, CASES[:3] + CASES[-3:], "too few cases"),
        (3, [*CASES[:9], ("หมา", True)], "too few cases"),  # nine of them kept
    ],
)
def test_the_minimums_are_applied(functions, cases, reason):
    found, counts = validated([again(THREE_WORDS, n) for n in range(functions)], cases)
    assert found is None and counts[reason] == 1
    found, _ = validated(
        [again(THREE_WORDS, n) for n in range(functions)],
        cases,
        minimums=Minimums(functions=1, cases=1),
    )
    assert found is not None


def test_functions_that_do_not_run_do_not_count_towards_the_minimum():
    broken = [HEAD + "return undefined", HEAD + "return 1"]
    found, counts = validated([THREE_WORDS, *broken])
    assert found is None
    assert counts["function fails"] == 2 and counts["too few functions"] == 1


def test_a_number_is_no_bool():
    runner = Runner(Tame())
    assert results(runner, HEAD + "return len(words)", [views("ก", "th")]) == [None]
    assert runner.counts == {"not a bool": 1}


# --- steps 4 and 5 ---------------------------------------------------------------------------------------


def translated_back(tmp_path, relation, said="เขียนตั้งแต่สามคำขึ้นไป", functions=2):
    def script(request):
        text = request.messages[0]["content"]
        is_function = "def evaluate" in text
        answer = said if is_function else relation
        return answer if answer is None else Answer(answer, "stop")

    verified = Verified(
        "ตอบอย่างน้อยสามคำ", [again(THREE_WORDS, n) for n in range(functions)], [1.0] * functions
    )
    counts = Counter()
    chat = Journal(Scripted(script), tmp_path)
    return back_translated(chat, "th", [verified], 0.2, 0, counts), counts


def test_a_constraint_that_its_functions_say_again_gains_their_words(tmp_path):
    (found,), counts = translated_back(tmp_path, "Entailment.")
    assert found.texts == ["ตอบอย่างน้อยสามคำ", "เขียนตั้งแต่สามคำขึ้นไป"]
    assert found.check == {"type": "function", "functions": [again(THREE_WORDS, n) for n in (0, 1)]}
    assert counts["kept"] == 1 and counts["entailment"] == 2


def test_a_contradiction_is_removed(tmp_path):
    found, counts = translated_back(tmp_path, "contradiction")
    assert found == [] and counts["dropped: contradiction"] == 1


@pytest.mark.parametrize("relation", ["entailment or contradiction", "hm", None])
def test_a_relation_that_cannot_be_read_is_no_verdict(tmp_path, relation):
    found, counts = translated_back(tmp_path, relation)
    assert found == [] and counts["dropped: relation unreadable"] == 1


def test_a_back_translation_that_failed_drops_the_constraint(tmp_path):
    found, counts = translated_back(tmp_path, "entailment", said=None)
    assert found == [] and counts["dropped: back-translation failed"] == 1


# --- in the sandbox ----------------------------------------------------------------------------------------

BWRAP = pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bubblewrap on this machine")
HOSTILE = {
    "loops for ever": HEAD + "while True:\n        pass",
    "ends the process": HEAD + "import sys\n    sys.exit(0)",
    "ends it at once": HEAD + "import os\n    os._exit(0)",
    "ends at import": "import sys\nsys.exit(0)\n" + ALWAYS,
    "dies": HEAD + "import os, signal\n    os.kill(os.getpid(), signal.SIGKILL)",
    "eats memory": HEAD + "x = [0]\n    while True:\n        x = x + x",
    "floods the output": HEAD + "import os\n    while True:\n        os.write(1, b'true' * 9999)",
    "gives a word": HEAD + "return 'true'",
    "gives a number": HEAD + "return 1",
    "raises": HEAD + "raise ValueError",
    "does not parse at run time": HEAD + "return eval('((((')",
}


@pytest.fixture(scope="module")
def sandbox():
    from endonym.rewards.sandbox import Sandbox

    return Sandbox.open()


@BWRAP
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_function_is_contained_and_says_nothing(sandbox, name, monkeypatch):
    monkeypatch.setattr("endonym.synth.instruct.running.CPU_SECONDS", 0.3)
    runner = Runner(sandbox)
    assert results(runner, HOSTILE[name], [views("แมวกินปลา", "th"), views("แมว", "th")]) == [
        None,
        None,
    ]
    assert runner.counts.total() >= 1


@BWRAP
def test_a_function_that_prints_is_heard_by_its_value_alone(sandbox):
    spam = HEAD + "print('[0, true]\\n' * 50)\n    return len(words) >= 3"
    assert results(Runner(sandbox), spam, [views("แมวกินปลา", "th"), views("แมว", "th")]) == [
        True,
        False,
    ]


@BWRAP
def test_a_function_reads_nothing_of_this_machine(sandbox, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    source = (
        HEAD + f"import os\n    return os.path.exists({str(secret)!r}) or os.path.exists('/home')"
    )
    assert results(Runner(sandbox), source, [views("ก", "th")]) == [False]


@BWRAP
def test_one_reply_on_which_a_function_ends_does_not_speak_for_the_others(sandbox):
    source = HEAD + "import os\n    if text == 'x': os._exit(1)\n    return len(words) >= 3"
    inputs = [views(text, "th") for text in ("แมวกินปลา", "x", "แมว", "นกบินสูง")]
    runner = Runner(sandbox)
    assert results(runner, source, inputs) == [True, None, False, True]
    assert runner.counts == {"error": 1}


@BWRAP
def test_hostile_functions_among_honest_ones_change_no_verdict(sandbox, monkeypatch):
    monkeypatch.setattr("endonym.synth.instruct.running.CPU_SECONDS", 0.3)
    bad = [HOSTILE[name] for name in ("loops for ever", "ends the process", "gives a word")]
    runner = Runner(sandbox)
    found, counts = validated([again(THREE_WORDS, n) for n in range(3)] + bad, runner=runner)
    assert len(found.functions) == 3 and found.accuracy == [1.0] * 3
    assert counts["function fails"] == 3
    assert runner.counts["timeout"] and runner.counts["not a bool"] == len(CASES)


def test_a_sandbox_that_fails_is_no_verdict_on_a_function():
    from endonym.rewards.sandbox import Infrastructure

    class Down(Tame):
        def call_many(self, *_, **__):
            raise Infrastructure("down")

    runner = Runner(Down())
    found, counts = validated([again(THREE_WORDS, n) for n in range(3)], runner=runner)
    assert found is None and counts == {"sandbox failed": 1}
    check = {"type": "function", "functions": [THREE_WORDS]}
    assert all_hold([("ก", check, "th")], runner) == [None]


# --- the journal ------------------------------------------------------------------------------------------


def test_a_journal_asks_nothing_twice_and_a_failed_call_again(tmp_path):
    failing = {"b"}
    chat = Scripted(
        lambda request: (
            None
            if request.messages[0]["content"] in failing
            else Answer(f"{request.seed} \ud800", "stop")
        )
    )
    journal = Journal(chat, tmp_path)
    requests = [ask("a"), ask("b"), ask("a"), ask("a", seed=1)]
    first = journal.ask(requests)
    assert [each and each.text for each in first] == ["0 ?", None, "0 ?", "1 ?"]
    assert (len(chat.requests), journal.asked, journal.failed) == (3, 3, 1)
    failing.clear()
    later = Journal(chat, tmp_path)
    assert later.ask(requests)[0] == first[0] and later.ask(requests)[1].text == "0 ?"
    assert len(chat.requests) == 4
    for file in tmp_path.rglob("*.json"):
        file.write_text("{torn")
    assert later.ask([ask("a")])[0] == first[0]


def test_thoughts_are_no_part_of_an_answer(tmp_path):
    said = {"a": "<think>hm</think>ดี", "b": "<think>hm", "c": "ดี"}
    chat = Scripted(lambda request: Answer(said[request.messages[0]["content"]], "stop"))
    for _ in range(2):
        found = Journal(chat, tmp_path).ask([ask(each) for each in said])
        assert [each.text for each in found] == ["ดี", "", "ดี"]


KILLED = """
import os, signal, sys
from pathlib import Path
from endonym.rewards.chat import Answer
from endonym.synth.instruct.chat import ask
from endonym.synth.instruct.journal import Journal

class Dying:
    name = "dying"
    def answers(self, requests, take):
        for number, each in enumerate(requests):
            if number == 5 and sys.argv[2] == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            print(each.messages[0]["content"], flush=True)
            take(number, Answer(f"answer {each.messages[0]['content']}", "stop"))

found = Journal(Dying(), Path(sys.argv[1])).ask([ask(str(n)) for n in range(8)])
assert [each.text for each in found] == [f"answer {n}" for n in range(8)]
"""


def test_a_kill_loses_no_answer_that_had_come(tmp_path):
    def run(how):
        line = [sys.executable, "-c", KILLED, str(tmp_path), how]
        return subprocess.run(line, capture_output=True, text=True, env={**os.environ})

    first = run("dies")
    assert first.returncode == -signal.SIGKILL and first.stdout.split() == list("01234")
    second = run("lives")
    assert second.returncode == 0, second.stderr
    assert second.stdout.split() == list("567")
