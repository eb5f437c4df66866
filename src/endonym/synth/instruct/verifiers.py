"""Step 2: functions that check a constraint, and test cases for them, written by a model.

Of each constraint several samples are asked, each one function and a few cases. The function is

    evaluate(text, words, sentences) -> bool

and gets the reply as it was written and as its language counts it (lang/segment.py): a function that
splits at spaces or full stops counts nothing right in Thai. The release handed it the reply in three
tokenisations and took any True.
"""

import ast
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from endonym.core.errors import DataError
from endonym.lang.pack import pack
from endonym.lang.segment import lines, sentences, words
from endonym.synth.instruct.chat import ask
from endonym.synth.instruct.journal import Journal
from endonym.synth.instruct.prompts import prompt

NAME = "evaluate"
LONGEST = 10_000
"""Characters of a function; of a case's text as well."""


@dataclass
class Candidate:
    """An instruction with what a model wrote to check it."""

    text: str
    functions: list[str] = field(default_factory=list)
    cases: list[tuple[str, bool]] = field(default_factory=list)
    """(reply, whether it obeys), no reply twice."""


def views(reply: str, language: str) -> list:
    """The arguments of a verifier function: the reply, its words, its sentences. A language without a
    word engine is a DataError, as everywhere (lang/segment.py)."""
    return [reply, words(reply, language), sentences(reply, language) or lines(reply)]


def written(
    chat: Journal,
    language: str,
    texts: Sequence[str],
    samples: int,
    cases: int,
    temperature: float,
    seed: int,
    counts: Counter[str],
) -> list[Candidate]:
    """One Candidate for each instruction, with the different functions and cases of `samples` answers.

    Counted: call failed, unreadable (no such JSON), no function (not Python, or none of the name),
    case unreadable (its result is no truth value), case contradicted (the same reply is to be True and
    False: both go), functions and cases that stay.
    """
    requests = [
        ask(
            prompt("verifier", language=pack(language).name, constraint=text, cases=cases),
            temperature=temperature,
            max_tokens=2048,
            seed=seed + number,
        )
        for text in texts
        for number in range(samples)
    ]
    answers = chat.ask(requests)
    found = []
    for place, text in enumerate(texts):
        candidate, wanted = Candidate(text), {}
        for answer in answers[place * samples : (place + 1) * samples]:
            if answer is None:
                counts["call failed"] += 1
            elif (read := _read(answer.text)) is None:
                counts["unreadable"] += 1
            else:
                _add(candidate, wanted, *read, counts)
        candidate.cases = [(reply, said.pop()) for reply, said in wanted.items() if len(said) == 1]
        counts["case contradicted"] += len(wanted) - len(candidate.cases)
        counts["functions"] += len(candidate.functions)
        counts["cases"] += len(candidate.cases)
        found.append(candidate)
    return found


def _add(
    candidate: Candidate,
    wanted: dict[str, set[bool]],
    function: str,
    cases: list,
    counts: Counter[str],
) -> None:
    if not _defines(function):
        counts["no function"] += 1
    elif function not in candidate.functions:
        candidate.functions.append(function)
    for case in cases:
        reply = case.get("text") if isinstance(case, dict) else None
        result = truth(case.get("result")) if isinstance(case, dict) else None
        if not isinstance(reply, str) or result is None or len(reply) > LONGEST:
            counts["case unreadable"] += 1
        else:
            wanted.setdefault(reply, set()).add(result)


def truth(value: object) -> bool | None:
    """A truth value, also where a model wrote it as a word: "true" never equals True."""
    if isinstance(value, bool):
        return value
    said = {"true": True, "false": False}
    return said.get(value.strip().casefold()) if isinstance(value, str) else None


def _read(answer: str) -> tuple[str, list] | None:
    """(source of the function, cases) out of the JSON object that an answer holds."""
    begin, decoder = answer.find("{"), json.JSONDecoder(strict=False)
    while begin >= 0:
        try:
            found = decoder.raw_decode(answer, begin)[0]
        except (ValueError, RecursionError):
            begin = answer.find("{", begin + 1)
            continue
        function, cases = found.get("function"), found.get("cases", [])
        if isinstance(function, str) and isinstance(cases, list):
            return function.strip(), cases
        return None
    return None


def _defines(source: str) -> bool:
    """Whether a source is Python and defines the function; it is read, never run here."""
    if not 0 < len(source) <= LONGEST:
        return False
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name == NAME for node in tree.body)


def checked_language(language: str) -> None:
    """DataError, with what to do, where a language's words cannot be counted."""
    try:
        words("", language)
    except DataError as error:
        raise DataError(
            "generated verifiers count words, and nothing here cuts them",
            where=f"language {language!r}",
            got=error.what,
            do="leave `constraints` at 0: the packed kinds of other units stay",
        ) from None
