"""Step 1: the constraints. A language's pack has kinds of them; a model is asked for more.

packs/<language>/instruct.toml:

    [form]           how literals are quoted and joined in an instruction; templates around it
    [[constraint]]   one kind:
        name         in all languages the same: two packs' words for one kind translate each other
        type, fixed  the check (rewards/constraints.py: IFEval's instruction ids, or ours) and what of
                     its arguments never changes
        range        numbers: {num_words = [20, 300, 10]}, lowest, highest, step
        choice       words: {end_phrase = ["...", "..."]}
        several      of a choice more than one is wanted: {keywords = 2}
        edit         how a reply is made to obey (editing.py); "" = only a model can
        texts        words that the edit adds
        say          the instruction, several ways, with {argument} for what varies

A drawn Constraint has no placeholder left: in the release seeds with {...} were dropped unfilled.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any

from pydantic import Field

from endonym.core.config import Config
from endonym.core.errors import DataError
from endonym.lang.cldr import locale_of
from endonym.lang.pack import pack, read_packed
from endonym.synth.instruct.chat import ask
from endonym.synth.instruct.journal import Journal
from endonym.synth.instruct.prompts import prompt

FUNCTION = "function"
"""The check type of a constraint whose verifier a model wrote."""
PER_CALL = 50
"""Constraints asked for in one call, as released."""
SHOWN = 20
"""Of the pool, as examples in such a call."""
SHORTEST, LONGEST = 8, 400
"""Characters of an instruction."""


class Form(Config):
    """How a language's instructions are put together."""

    quote: str = "“{}”"
    join: tuple[str, str] = (", ", ", ")
    """Between several literals, and before the last."""
    plain: str = "{query} {constraint}"
    """The query and the constraint one after the other; in 8 of 17 user turns."""
    user: list[str] = Field(default_factory=lambda: ["{query}\n\n{constraint}"])
    """Other ways to put both into one user turn."""
    system: list[str] = Field(default_factory=lambda: ["{constraint}"])


class Kind(Config):
    """One kind of packed constraint; the head of this file says its keys."""

    name: str
    type: str
    fixed: dict[str, Any] = Field(default_factory=dict)
    range: dict[str, tuple[int, int, int]] = Field(default_factory=dict)
    choice: dict[str, list[Any]] = Field(default_factory=dict)
    several: dict[str, int] = Field(default_factory=dict)
    edit: str = ""
    texts: list[str] = Field(default_factory=list)
    say: list[str]


@dataclass(frozen=True)
class Constraint:
    """One constraint, ready to be told and checked.

    name:  of its kind, or "made/<n>" where a model wrote it
    texts: the instruction, said in one way or more, in `language`
    check: what rewards/constraints.py checks, or {"type": "function", "functions": [source, ...]}
    """

    name: str
    language: str
    texts: list[str]
    check: dict[str, Any] = field(default_factory=dict)


@lru_cache(maxsize=64)
def _packed(language: str) -> tuple[Form, tuple[Kind, ...]]:
    found, where = read_packed(language, "instruct.toml"), f"lang/packs/{language}/instruct.toml"
    if not found:
        return Form(), ()
    rows = [Kind.read(row, where=f"{where}: constraint") for row in found.pop("constraint", [])]
    form = Form.read(found.pop("form", {}), where=f"{where}: form")
    names = Counter(kind.name for kind in rows)
    if twice := [name for name, number in names.items() if number > 1]:
        raise DataError("two constraints share a name", where=where, got=", ".join(twice))
    return form, tuple(rows)


def form(language: str) -> Form:
    """How instructions are put together; plainly for a language whose pack does not say."""
    return _packed(language)[0]


def kinds_of(language: str) -> list[Kind]:
    """The packed kinds of a language, if it has any."""
    return list(_packed(language)[1])


def kinds(language: str) -> list[Kind]:
    """The packed kinds of a language; DataError for one that has none."""
    found = kinds_of(language)
    if not found:
        raise DataError(
            f"the pack of {language!r} has no constraints",
            wanted=f"packs/{language}/instruct.toml",
            do="write one after lang/packs/en/instruct.toml (ENDONYM_PACKS names your own folder);"
            " with a teacher you may name another language in `pool`",
        )
    return found


def arguments(kind: Kind, random: Random) -> dict[str, Any]:
    """A drawing of all that varies in a kind, besides what is fixed."""
    drawn: dict[str, Any] = dict(kind.fixed)
    for name, (low, high, step) in kind.range.items():
        drawn[name] = random.randrange(low, high + 1, step)
    for name, words in kind.choice.items():
        number = kind.several.get(name)
        drawn[name] = random.sample(words, number) if number else random.choice(words)
    return drawn


def said(kind: Kind, drawn: dict[str, Any], language: str) -> list[str]:
    """The instruction in every way that the pack of `language` knows, its arguments filled in."""
    here = form(language)
    named = {name: _told(value, name, here) for name, value in drawn.items()}
    if "language" in drawn:
        named["language_name"] = _name(drawn["language"], language)
    try:
        return [each.format(**named) for each in kind.say]
    except (LookupError, ValueError) as error:
        raise DataError(
            "an instruction names an argument that its constraint has not",
            where=f"lang/packs/{language}/instruct.toml: {kind.name}",
            got=str(error),
        ) from None


def _name(code: str, language: str) -> str:
    """What a language is called in another; by CLDR."""
    return locale_of(language).languages.get(code) or pack(code).name


BARE = ("postscript_marker", "section_spliter", "letter")
"""Arguments that stand in an instruction as they are quoted there."""


def _told(value: Any, name: str, here: Form) -> str:
    if isinstance(value, list):
        quoted = [here.quote.format(each) for each in value]
        return here.join[0].join(quoted[:-1]) + here.join[1] * (len(quoted) > 1) + quoted[-1]
    is_literal = isinstance(value, str) and name not in BARE
    return here.quote.format(value) if is_literal else str(value)


def constraint_of(kind: Kind, drawn: dict[str, Any], language: str) -> Constraint:
    """A kind with its arguments as a constraint to be told in `language`."""
    check = {"type": kind.type} | drawn
    return Constraint(kind.name, language, said(kind, drawn, language), check)


def translated(name: str, drawn: dict[str, Any], language: str) -> list[str]:
    """The same constraint in the words of another language's pack; [] where that has no such kind."""
    return [
        text
        for kind in _packed(language)[1]
        if kind.name == name
        for text in said(kind, drawn, language)
    ]


def spoken(kind: Kind, drawn: dict[str, Any], language: str, said_in: str) -> Constraint:
    """A kind drawn for a reply in `language`, told in the words of another language's pack; in the own
    words where that has no such kind."""
    here = constraint_of(kind, drawn, language)
    there = translated(kind.name, drawn, said_in) if said_in != language else []
    return Constraint(kind.name, said_in, there, here.check) if there else here


def augmented(
    chat: Journal,
    language: str,
    amount: int,
    temperature: float,
    seed: int,
    counts: Counter[str],
) -> list[str]:
    """New instructions of a model, at most `amount`, none said twice.

    Each call shows other examples of the packed pool. Dropped and counted: unreadable, placeholder
    (a {} or [] or ___ that nobody fills), length, repeated (also of the examples).
    """
    known, requests = {_folded(text) for text in _examples(language, seed)}, []
    for number in range(-(-amount // PER_CALL)):
        shown = Random(f"{seed} {number}").sample(pool := _examples(language, seed),
                                                  min(SHOWN, len(pool)))  # fmt: skip
        text = prompt(
            "augment",
            language=pack(language).name,
            number=PER_CALL,
            examples="\n".join(f"- {each}" for each in shown),
        )
        requests.append(ask(text, temperature=temperature, max_tokens=4096, seed=seed + number))
    found: list[str] = []
    for answer in chat.ask(requests):
        if answer is None:
            counts["call failed"] += 1
            continue
        for line in answer.text.splitlines():
            text = re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", line).strip()
            if not text or text.endswith(":"):
                continue
            counts["asked"] += 1
            if re.search(r"\{[^}]*\}|\[[^\]]*\]|_{3,}|<[^>]+>", text):
                counts["placeholder"] += 1
            elif not SHORTEST <= len(text) <= LONGEST:
                counts["length"] += 1
            elif _folded(text) in known:
                counts["repeated"] += 1
            else:
                known.add(_folded(text))
                found.append(text)
    counts["kept"] += len(found[:amount])
    counts["beyond the amount"] += len(found[amount:])
    return found[:amount]


def _examples(language: str, seed: int) -> list[str]:
    """Every packed kind, said in one way with one drawing."""
    random = Random(f"examples {language} {seed}")
    given = {"prompt_to_repeat": "...", "language": language}
    return [random.choice(said(kind, arguments(kind, random) | given, language))
            for kind in kinds(language)]  # fmt: skip


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!。 ")
