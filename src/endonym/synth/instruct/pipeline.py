"""The nine steps in their order; see the table at the head of this package.

    made(...)      steps 1 to 5: constraints of a model, each with functions that check it
    by_model(...)  steps 6 to 9 with a model's replies
    by_rule(...)   steps 6 to 9 with known replies, edited

Both give samples a chunk of CHUNK pairs at a time, so that an `amount` ends the asking early and a large
set of queries is never held whole.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TypeVar

from endonym.synth.instruct import (
    back_translation,
    cross_validation,
    editing,
    emission,
    generation,
    judging,
    pool,
    verifiers,
)
from endonym.synth.instruct.composition import Pair, Query, composed, drawing
from endonym.synth.instruct.draft import Draft, is_plain
from endonym.synth.instruct.emission import Placement, Told
from endonym.synth.instruct.journal import Journal
from endonym.synth.instruct.pool import Constraint, Kind
from endonym.synth.instruct.running import Runner
from endonym.synth.instruct.settings import Settings
from endonym.synth.instruct.verification import all_hold, foreign

CHUNK = 256
T = TypeVar("T")

Steps = defaultdict[str, Counter[str]]
"""What each step took and dropped, by reason."""


@dataclass(frozen=True)
class Sample:
    told: Told
    reply: str
    score: float | None = None
    """The judge's; None where nothing was judged."""


def made(
    chat: Journal, settings: Settings, runner: Runner, steps: Steps
) -> tuple[list[Constraint], list[cross_validation.Verified]]:
    """(constraints that a model wrote and that survived steps 1 to 5, all that passed step 3)."""
    language, seed = settings.language, settings.seed
    verifiers.checked_language(language)
    texts = pool.augmented(
        chat, language, settings.constraints, settings.temperature, seed, steps["pool"]
    )
    candidates = verifiers.written(
        chat,
        language,
        texts,
        settings.functions,
        settings.cases,
        settings.verifier_temperature,
        seed,
        steps["verifiers"],
    )
    verified = cross_validation.cross_validated(
        candidates, language, runner, settings.minimums, steps["cross-validation"]
    )
    found = back_translation.back_translated(
        chat, language, verified, settings.verifier_temperature, seed, steps["back-translation"]
    )
    steps["sandbox, cross-validation"] += runner.counts
    runner.counts.clear()
    return found, verified


def by_model(
    queries: Iterable[Query],
    packed: dict[str, list[Kind]],
    constraints: list[Constraint],
    chat: Journal,
    judge: Journal,
    settings: Settings,
    runner: Runner | None,
    steps: Steps,
) -> Iterator[Sample]:
    """Replies of a model that obey, keep to their script and please the judge."""
    seed = settings.seed
    pairs = composed(queries, packed, constraints, settings.per_query, seed)
    for chunk in _chunks(pairs):
        steps["composition"]["pairs"] += len(chunk)
        told = _told(chunk, chat, settings, steps)
        replies = generation.generated(
            chat,
            told,
            settings.responses,
            settings.temperature,
            settings.max_tokens,
            seed,
            steps["generation"],
        )
        samples = [Sample(one, reply) for one, some in zip(told, replies) for reply in some]
        samples = _obeying(samples, runner, steps["verification"])
        if runner is not None:
            steps["sandbox, verification"] += runner.counts
            runner.counts.clear()
        samples = [each for each in samples if _in_script(each, steps["foreign script"])]
        yield from _judged(samples, judge, settings.judge_above, steps["judge"])


def by_rule(
    queries: Iterable[Query],
    packed: dict[str, list[Kind]],
    settings: Settings,
    steps: Steps,
) -> Iterator[Sample]:
    """Known replies that a rule made to obey; each was verified like a model's.

    packed: kinds by language. A query in another language, without a known reply, or with one that is
    code, LaTeX or a table is passed over.
    """
    for chunk in _chunks(_edited(queries, packed, settings, steps)):
        pairs, replies = zip(*chunk)
        told = _told(pairs, None, settings, steps)
        for one, reply in zip(told, replies):
            yield Sample(one, reply)


def _edited(
    queries: Iterable[Query], packed: dict[str, list[Kind]], settings: Settings, steps: Steps
) -> Iterator[tuple[Pair, str]]:
    for query in queries:
        kinds = [kind for kind in packed.get(query.language, []) if kind.edit]
        reason = (
            "no packed constraints in its language"
            if not kinds
            else "no known reply"
            if not query.reply
            else "code, LaTeX or a table"
            if not is_plain(query.reply)
            else foreign(query.reply, query.text, query.language).partition(":")[0]
        )
        steps["composition"][reason or "queries"] += 1
        if reason:
            continue
        random, number = Random(f"edit {settings.seed} {query.id} {query.text}"), 0
        for kind in random.sample(kinds, len(kinds)):
            if number == settings.per_query:
                break
            found = _edit(query, kind, random, settings, steps)
            if found is not None:
                yield Pair(query, found[0], number), found[1]
                number += 1
        steps["composition"]["pairs"] += number
        steps["composition"]["no constraint fits"] += not number


def _edit(
    query: Query, kind: Kind, random: Random, settings: Settings, steps: Steps
) -> tuple[Constraint, str] | None:
    """(constraint, the reply that obeys it); None where the rule does not fit or the result fails."""
    drawn = drawing(kind, query, random)
    draft = Draft(query.text, query.reply, kind, drawn, query.language, random)
    reply = editing.edit(draft)
    if reply is None:
        steps["editing"]["does not fit"] += 1
        return None
    steps["editing"]["reply as it was" if reply == query.reply else "reply edited"] += 1
    said_in = random.choice(settings.languages)
    constraint = pool.spoken(kind, draft.drawn, query.language, said_in)
    if all_hold([(reply, constraint.check, query.language)], None) != [True]:
        steps["verification"][f"does not obey: {kind.name}"] += 1
        return None
    steps["verification"]["obeys"] += 1
    reason = foreign(reply, query.text, query.language, constraint.texts[0]).partition(":")[0]
    steps["foreign script"][reason or "in its scripts"] += 1
    return None if reason else (constraint, reply)


def _chunks(rows: Iterable[T]) -> Iterator[list[T]]:
    rows = iter(rows)
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


def _told(
    pairs: Sequence[Pair], chat: Journal | None, settings: Settings, steps: Steps
) -> list[Told]:
    """The pairs in words, each in its place."""
    said = emission.texts(
        pairs,
        settings.language,
        chat,
        settings.translate,
        settings.seed,
        steps["translation"],
    )
    placement = Placement(settings.system, settings.plain)
    return [
        emission.placed(pair, text, pair.query.language, placement, settings.seed)
        for pair, text in zip(pairs, said)
    ]


def _obeying(
    samples: Sequence[Sample], runner: Runner | None, counts: Counter[str]
) -> list[Sample]:
    """The samples whose reply obeys."""
    asked = []
    for each in samples:
        pair = each.told.pair
        asked.append((each.reply, pair.constraint.check, pair.query.language))
    verdicts = all_hold(asked, runner)
    names = {True: "obeys", False: "does not obey", None: "not verified: a function failed"}
    counts.update(names[verdict] for verdict in verdicts)
    return [each for each, verdict in zip(samples, verdicts) if verdict]


def _in_script(sample: Sample, counts: Counter[str]) -> bool:
    query = sample.told.pair.query
    reason = foreign(sample.reply, query.text, query.language, sample.told.text).partition(":")[0]
    counts[reason or "in its scripts"] += 1
    return not reason


def _judged(
    samples: Sequence[Sample], judge: Journal, above: float | None, counts: Counter[str]
) -> Iterator[Sample]:
    if above is None:
        yield from samples
        return
    asked = [
        (each.told.pair.query.text, each.told.text, each.reply, each.told.pair.query.language)
        for each in samples
    ]
    for each, score in zip(samples, judging.scored(judge, asked, counts)):
        if score is None:
            continue
        counts["kept" if score > above else "at or below the threshold"] += 1
        if score > above:
            yield Sample(each.told, each.reply, score)
