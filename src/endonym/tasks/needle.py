"""Needles in a haystack: a fact that cannot be guessed, hidden in a long text, and the question for it.

    Needle: key "red fox", value "4718305"
      statement   The secret number of the red fox is 4718305.
      question    What is the secret number of the red fox? The secret number of the red fox is
      answer      " 4718305"

The task in which context extension is gated (K-EXAONE, section 8.7 of its report's reviews: near
perfect over the whole range of lengths and depths); numbers of seven digits as RULER has them
(arXiv:2404.06654). The sentences are data: lang/packs/<language>/needle.toml. A language without the
file gets its own names of countries and languages (CLDR) as keys and the plain form "{key}: {value}",
so that nothing is said in a language that nobody wrote.

A fifth of the keys, by their hash, is for testing and stands in no training document.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Literal

from pydantic import Field

from endonym.core.config import Config
from endonym.core.errors import DataError
from endonym.lang.locale import facts, hashed_out, skills
from endonym.lang.pack import read_packed

LICENCE = "CC0-1.0"
PLAIN_SKILLS = ("countries", "languages")
NUM_OTHERS = 3


class NeedleConfig(Config):
    """A grid of lengths and depths in which needles are looked for (eval/needles.py)."""

    language: str
    lengths: list[int] = Field(min_length=1)
    """Of the whole row in tokens, question and answer included. None is ever shortened."""
    depths: list[float] = [0.0, 0.25, 0.5, 0.75, 1.0]
    """Where the needle lies: 0 at the text's beginning, 1 right before the question."""
    amount: int = Field(default=8, gt=0)
    """Needles of each cell."""
    digits: int = Field(default=7, gt=0, le=18)
    """Of a value. RULER: 7."""
    seed: int = 0


class Words(Config):
    """What a pack says in needle.toml."""

    key: str = "{kind} {thing}"
    statement: str
    question: str
    kinds: list[str]
    things: list[str]


@dataclass(frozen=True)
class Needle:
    """answer follows the question directly, its space included; others are wrong answers of the same
    form, which differ from it in the first digit."""

    key: str
    value: str
    statement: str
    question: str
    answer: str
    others: tuple[str, ...]


def needles(
    language: str, split: Literal["train", "test"], *, amount: int, seed: int = 0, digits: int = 7
) -> list[Needle]:
    """`amount` needles with keys of the split, none twice before all were used."""
    pool, statement, question = _forms(language)
    keys = [key for key in pool if hashed_out(f"needle {key}") == (split == "test")]
    if len(keys) < 2:
        raise DataError(
            f"there are no names to hide in {language!r}",
            wanted=f"lang/packs/{language}/needle.toml, or names of countries in CLDR",
            got=f"{len(keys)} keys for {split}",
        )
    random = Random(f"needles {language} {split} {seed}")
    made: list[Needle] = []
    while len(made) < amount:
        random.shuffle(keys)
        for key in keys[: amount - len(made)]:
            first, *rest = random.sample("123456789", NUM_OTHERS + 1)
            value, *others = (
                head + "".join(random.choices("0123456789", k=digits - 1))
                for head in (first, *rest)
            )
            made.append(
                Needle(
                    key=key,
                    value=value,
                    statement=statement.format(key=key, value=value),
                    question=question.format(key=key),
                    answer=f" {value}",
                    others=tuple(f" {other}" for other in others),
                )
            )
    return made


def document(haystack: str, hidden: Sequence[Needle], random: Random) -> str:
    """A training text: the haystack with each needle on a line of its own, at any depth, then the
    questions for all of them, answered, in another order."""
    cuts = [place for place, letter in enumerate(haystack) if letter.isspace()]
    places = sorted(random.choice(cuts) if cuts else 0 for _ in hidden)
    parts, begin = [], 0
    for place, needle in zip(places, hidden):
        parts.append(haystack[begin:place].strip())
        parts.append(needle.statement)
        begin = place
    parts.append(haystack[begin:].strip())
    asked = random.sample(list(hidden), len(hidden))
    answers = [needle.question + needle.answer for needle in asked]
    return "\n".join(part for part in (*parts, *answers) if part)


def listing(told: Sequence[Needle], random: Random) -> str:
    """A training text without a haystack: the needles' keys and numbers, one on a line, said three to
    six times. Whoever predicts what comes after the first time has looked it up."""
    lines = [needle.key + needle.answer for needle in told]
    return "\n".join(lines * random.randint(3, 6))


@lru_cache(maxsize=64)
def _forms(language: str) -> tuple[tuple[str, ...], str, str]:
    """(all keys, statement, question) of a language."""
    own = read_packed(language, "needle.toml")
    if not own:
        known = [skill for skill in PLAIN_SKILLS if skill in skills(language)]
        names = [fact.value for skill in known for fact in facts(language, skill)]
        return tuple(dict.fromkeys(names)), "{key}: {value}", "{key}:"
    words = Words.read(own, where=f"lang/packs/{language}/needle.toml")
    keys = (
        words.key.format(kind=kind, thing=thing) for kind in words.kinds for thing in words.things
    )
    return tuple(keys), words.statement, words.question
