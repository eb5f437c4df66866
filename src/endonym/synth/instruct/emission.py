"""Step 9: where a constraint stands, and in which language it is said.

Placement: half of the samples have it in the user's turn, half as system prompt. In the user's turn it
simply follows the query in 8 of 17; the others use the pack's templates, each as likely (the release:
8 of its 17 templates are the plain one).

Language: a constraint in another language than its query's is translated where the query is in the
language that is made for, stays as it is where the query is English, and is translated by the toss of
a coin otherwise (as released). A packed constraint is translated by the words of the other pack for the
same kind, any other by the model; a translation that lost a quoted literal or a number is not used.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any

from endonym.data.document import Conversation
from endonym.lang.pack import pack
from endonym.synth.instruct.chat import ask
from endonym.synth.instruct.composition import Pair
from endonym.synth.instruct.journal import Journal
from endonym.synth.instruct.pool import FUNCTION, form, translated
from endonym.synth.instruct.prompts import prompt
from endonym.synth.instruct.verification import LITERAL

if TYPE_CHECKING:
    from endonym.synth.instruct.pipeline import Sample


@dataclass(frozen=True)
class Placement:
    """How often a constraint stands where; the defaults are the release's."""

    system: float = 0.5
    plain: float = 8 / 17
    """Of those in the user's turn."""


@dataclass(frozen=True)
class Told:
    """A pair as it is said: `text` is the constraint in the words and the language that are used."""

    pair: Pair
    text: str
    place: str
    """ "system", "plain" or "template"."""
    messages: list[dict[str, str]]


def texts(
    pairs: Sequence[Pair],
    language: str,
    chat: Journal | None,
    translate: float,
    seed: int,
    counts: Counter[str],
) -> list[str]:
    """The constraint of each pair in one of its ways to say it, translated where that is due.

    translate: of the constraints whose query is in `language` and that are not.
    """
    found: list[str] = []
    asked: list[tuple[int, str, str]] = []
    for place, pair in enumerate(pairs):
        random = Random(f"say {seed} {pair.key}")
        constraint, spoken = pair.constraint, pair.query.language
        found.append(random.choice(constraint.texts))
        if constraint.language == spoken:
            continue
        share = translate if spoken == language else 0.0 if spoken == "en" else 0.5
        if random.random() >= share:
            counts["left in its language"] += 1
        elif constraint.check["type"] != FUNCTION:
            drawn = {key: value for key, value in constraint.check.items() if key != "type"}
            others = translated(constraint.name, drawn, spoken)
            counts["translated by a pack" if others else "not in the other pack"] += 1
            found[place] = random.choice(others) if others else found[place]
        elif chat is not None:
            asked.append((place, constraint.language, spoken))
    if not asked:
        return found
    requests = [
        ask(
            prompt(
                "translate",
                source=pack(source).name,
                target=pack(target).name,
                constraint=found[place],
            ),
            max_tokens=512,
        )
        for place, source, target in asked
    ]
    for (place, _, _), answer in zip(asked, chat.ask(requests)):
        text = answer.text.strip() if answer else ""
        lost = not text or not keeps_literals(found[place], text)
        counts["translation lost a literal or failed" if lost else "translated"] += 1
        found[place] = found[place] if lost else text
    return found


def keeps_literals(original: str, translation: str) -> bool:
    """Whether all that stands in quotation marks, and every number, is in the translation as it was."""
    return all(each in translation for each in LITERAL.findall(original))


def placed(pair: Pair, text: str, language: str, placement: Placement, seed: int) -> Told:
    """The pair as messages, by the templates of the language that the constraint is said in."""
    random, here = Random(f"place {seed} {pair.key}"), form(language)
    query = pair.query.text
    if random.random() < placement.system:
        system = _filled(random.choice(here.system), constraint=text)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": query}]
        return Told(pair, text, "system", messages)
    place = "plain" if random.random() < placement.plain else "template"
    template = here.plain if place == "plain" else random.choice(here.user)
    content = _filled(template, query=query, constraint=text)
    return Told(pair, text, place, [{"role": "user", "content": content}])


def _filled(template: str, **values: str) -> str:
    """Each {name} of the template once; what a value says is not looked at."""
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], template)


@dataclass(frozen=True)
class Checked(Conversation):
    """A conversation with what its reply obeys; as a table it is one of conversations with two columns
    more."""

    checks: list[dict[str, Any]] = field(default_factory=list)
    score: float | None = None


def checked(samples: Iterable["Sample"], counts: Counter[str]) -> Iterator[tuple[Checked, str]]:
    """(row, place of its constraint) of each sample; of samples that say the same the first."""
    seen: set[bytes] = set()
    for sample in samples:
        pair, messages = sample.told.pair, [*sample.told.messages]
        messages.append({"role": "assistant", "content": sample.reply})
        told = json.dumps(messages, ensure_ascii=False).encode("utf-8", "backslashreplace")
        digest = blake2b(told, digest_size=12).digest()
        if digest in seen:
            counts["repeated"] += 1
            continue
        seen.add(digest)
        counts["kept"] += 1
        query, check = pair.query, pair.constraint.check
        row = Checked(
            id=f"instruct/{digest.hex()}",
            messages=messages,
            language=query.language,
            source=query.source,
            licence=query.licence,
            task=pair.constraint.name,
            checks=[check],
            score=sample.score,
        )
        yield row, sample.told.place
