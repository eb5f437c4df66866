"""Step 6: queries, and which constraint each of them gets.

A query is the first thing that a user says in a conversation, a prompt or an item; what was replied to
it is kept where it is known. Each query gets `per_query` different constraints, drawn evenly over all.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from endonym.lang.pack import pack
from endonym.rewards.constraints import SIGNATURES
from endonym.rewards.ifeval import has_case
from endonym.synth.instruct.pool import Constraint, Kind, arguments, kinds_of, spoken

LONGEST = 8000
"""Characters of a query."""


@dataclass(frozen=True)
class Query:
    id: str
    text: str
    language: str
    reply: str = ""
    """What was said to it, where that is known."""
    source: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Pair:
    """A query and the constraint that its reply must obey."""

    query: Query
    constraint: Constraint
    number: int = 0
    """Which of the query's constraints it is."""

    @property
    def key(self) -> str:
        """What its random numbers depend on besides the seed."""
        return f"{self.query.id} {self.query.text} {self.number}"


def query_of(
    row_id: str, messages: list[dict[str, Any]], language: str, answer: str = "", **where: str
) -> Query | str:
    """The query of a row's messages, or why it has none. A system prompt is another constraint, so a
    row with one has no query of its own."""
    if not messages or messages[0].get("role") != "user":
        return "does not begin with a user"
    text, reply = messages[0].get("content"), answer
    if not isinstance(text, str) or not text.strip():
        return "no text"
    if len(text) > LONGEST:
        return "too long"
    following = messages[1] if len(messages) > 1 else {}
    if not reply and following.get("role") == "assistant" and not following.get("tool_calls"):
        reply = following.get("content") or ""
    reply = reply if isinstance(reply, str) else ""
    return Query(row_id, text.strip(), language, reply.strip(), **where)


def once(queries: Iterable[Query | str], counts: Counter[str]) -> Iterator[Query]:
    """The queries, none asked twice; rows without one are counted by reason."""
    seen = set()
    for each in queries:
        if isinstance(each, str):
            counts[each] += 1
        elif (text := " ".join(each.text.split())) in seen:
            counts["asked twice"] += 1
        else:
            seen.add(text)
            counts["kept"] += 1
            yield each


def composed(
    queries: Iterable[Query],
    packed: dict[str, list[Kind]],
    made: list[Constraint],
    per_query: int,
    seed: int,
) -> Iterator[Pair]:
    """Pairs for a model to answer: kinds of the packs and made constraints, each as likely as any.

    A packed kind is drawn from the pack of the query's language, where that has it (its words are to
    stand in the reply), and told in the language of the pack that it is taken from.
    """
    pools: dict[str, list[tuple[str, Kind | Constraint]]] = {}
    for query in queries:
        if query.language not in pools:
            pools[query.language] = _pool(query.language, packed, made)
        pool = pools[query.language]
        random = Random(f"compose {seed} {query.id} {query.text}")
        for number, (said_in, each) in enumerate(random.sample(pool, min(per_query, len(pool)))):
            if isinstance(each, Kind):
                each = spoken(each, drawing(each, query, random), query.language, said_in)
            yield Pair(query, each, number)


def _pool(
    language: str, packed: dict[str, list[Kind]], made: list[Constraint]
) -> list[tuple[str, Kind | Constraint]]:
    """(language in which it is told, kind or constraint) of all that a reply in `language` can be checked
    for: letter case only where there is one, functions only where words can be cut."""
    own = {kind.name: kind for kind in kinds_of(language)}
    found: list[tuple[str, Kind | Constraint]] = [
        (said_in, own.get(kind.name, kind))
        for said_in, kinds in packed.items()
        for kind in kinds
        if has_case(language) or not kind.type.startswith("change_case:")
    ]
    is_cut = pack(language).count.words != "none"
    return found + [(each.language, each) for each in made if is_cut]


def drawing(kind: Kind, query: Query, random: Random) -> dict[str, Any]:
    """The arguments of a kind for a query: drawn, and those that the query itself gives."""
    drawn = arguments(kind, random)
    if kind.type == "combination:repeat_prompt":
        drawn["prompt_to_repeat"] = query.text
    if needs_language(kind.type):
        drawn["language"] = query.language
    return drawn


def needs_language(type: str) -> bool:
    """Whether a check takes the reply's language: all of IFEval's do, and some of ours."""
    return type in SIGNATURES and "language" in SIGNATURES[type].parameters
