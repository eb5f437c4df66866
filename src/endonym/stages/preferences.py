"""Pairs of a better and a worse answer, out of files of TRL's row types or made for fluency."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome, Slot, Stage
from endonym.stages.source import Source
from endonym.stages.sources import gather
from endonym.stages.tally import Tally


class PreferenceSource(Source):
    """One of: builtin = "fluency"; path = "FILE, FOLDER or PATTERN"; hub = "ORG/NAME"."""

    builtin: Literal["", "fluency"] = ""
    """fluency: sentences of the documents `text`, or of the almanac and the handbook, each with a
    damaged one (synth/fluency.py). `split` parts them by sentence."""
    damage: list[str] = []
    """Its kinds; empty: all that the language's pack allows."""


class PreferencesConfig(Config):
    sources: list[PreferenceSource]
    quarantine: float = Field(default=0.01, ge=0, le=1)
    """Largest share of a file's rows that may be unreadable before the run stops."""


def preferences(
    config: PreferencesConfig,
    context: Context,
    out: Path,
    *,
    without: dict[str, Artifact],
    text: dict[str, Artifact],
) -> Outcome:
    """preferences.parquet: id, prompt, chosen, rejected, language, source, licence, task, tools, margin
    (data/document.py).

    text: documents whose sentences the builtin source damages. Rows that hold a prompt of the exams
    `without` are dropped and counted; rows that cannot be read stand in quarantine.jsonl with file,
    line and reason.
    """
    from endonym.data.document import Preference, write_table

    if text and not any(source.builtin for source in config.sources):
        raise RecipeError(
            "documents are plugged in and no source uses them",
            where="text",
            wanted='a source with builtin = "fluency"',
        )
    tally, tasks = Tally(), Counter()
    rows = gather(
        config.sources,
        partial(_builtin, text=text),
        Preference,
        tally,
        without,
        out / "quarantine.jsonl",
        config.quarantine,
    )
    count = write_table(out / "preferences.parquet", _counted(rows, tasks))
    figures = {"preferences": count, "characters": tally.characters, "tasks": dict(tasks)}
    return Outcome(figures | tally.figures(), tally.licences())


def _counted(rows: Iterator[Any], tasks: Counter[str]) -> Iterator[Any]:
    for row in rows:
        tasks[row.task] += 1
        yield row


def _builtin(source: PreferenceSource, text: dict[str, Artifact]) -> Iterator[Any]:
    from endonym.synth import fluency

    if not source.language:
        raise RecipeError("fluency needs to know the language", wanted='language = "th"')
    documents = _plugged(source, text) if text else _written(source)
    return fluency.pairs(
        documents, source.language, seed=source.seed, kinds=source.damage, takes=source.takes
    )


def _plugged(source: PreferenceSource, text: dict[str, Artifact]) -> Iterator[Any]:
    """The plugged documents that are in the source's language, or do not say theirs."""
    from endonym.data.document import Document, read_table

    for artifact in text.values():
        for row in read_table(artifact.file("documents.parquet"), Document):
            if row.language in ("", source.language):
                yield row


def _written(source: PreferenceSource) -> Iterator[Any]:
    """The handbook's documents, where the language has one, and twice as many of the almanac's as there
    are pairs to make: most hold a sentence that is long enough. (Of a split they hold its share.)"""
    from endonym.synth import almanac, handbook

    if source.amount is None:
        raise RecipeError(
            "the almanac needs to know how many pairs",
            where=source.shown,
            wanted="amount = 2000, or documents plugged in as `text`",
        )
    told = handbook.documents(source.language) if source.language in handbook.languages() else []
    facts = almanac.documents(
        source.language, seed=source.seed, amount=2 * source.amount, tasks=source.skills()
    )
    return chain(told, facts)


STAGE = Stage(
    name="preferences",
    version=1,
    kind="preferences",
    config=PreferencesConfig,
    slots={
        "without": Slot("items", many=True, optional=True),
        "text": Slot("documents", many=True, optional=True),
    },
    function=preferences,
)
