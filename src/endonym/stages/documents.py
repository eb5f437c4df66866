"""Text for training or for measuring, out of generated facts, the handbook, the bylaws, sections of laws
or files."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome, Slot, Stage
from endonym.stages.builtin import section_rows, statute_rows
from endonym.stages.source import Deduplicate, Source
from endonym.stages.sources import gather
from endonym.stages.tally import Tally


class DocumentsConfig(Config):
    sources: list[Source]
    quarantine: float = Field(default=0.01, ge=0, le=1)
    """Largest share of a file's rows that may be unreadable before the run stops."""
    deduplicate: Deduplicate | None = None
    """Drop rows that say what an earlier one says; {} drops those with the same words."""
    filters: bool = False
    """Drop documents that miss a threshold of their language's pack (lang/quality.py)."""


def documents(
    config: DocumentsConfig,
    context: Context,
    out: Path,
    *,
    without: dict[str, Artifact],
    sections: dict[str, Artifact] | None = None,
) -> Outcome:
    """documents.parquet: id, text, language, source, licence, scores (data/document.py).

    Rows that hold a prompt of the exams `without`, that miss a filter or that repeat another are
    dropped and counted by reason; rows that cannot be read stand in quarantine.jsonl with file, line
    and reason.
    """
    from endonym.data.document import Document, write_table

    tally = Tally()
    rows = gather(
        config.sources,
        partial(_builtin, sections=sections),
        Document,
        tally,
        without,
        out / "quarantine.jsonl",
        config.quarantine,
        deduplicate=config.deduplicate,
        filters=config.filters,
    )
    scores = list(dict.fromkeys(name for source in config.sources for name in source.scores))
    count = write_table(out / "documents.parquet", rows, scores=scores)
    figures = {"documents": count, "characters": tally.characters, **tally.figures()}
    return Outcome(figures, tally.licences())


def _builtin(source: Source, sections: dict[str, Artifact] | None) -> Iterator:
    if source.builtin == "almanac":
        from endonym.synth import almanac

        if source.amount is None:
            raise RecipeError(
                "the almanac needs to know how many documents", wanted="amount = 9000"
            )
        if source.forms:
            return almanac.asked(
                source.language,
                seed=source.seed,
                amount=source.amount,
                tasks=source.skills(),
                forms=source.forms,
            )
        return almanac.documents(
            source.language,
            split=source.split or "train",
            seed=source.seed,
            amount=source.amount,
            tasks=source.skills(),
        )
    if source.builtin == "bylaws":
        from endonym.synth import bylaws, searches

        return statute_rows(source, bylaws.documents, searches.documents)
    if source.builtin == "sections":
        from endonym.synth import definitions, lookups

        makers = {
            "whole": definitions.whole,
            "passage": definitions.passages,
            "question": definitions.answered,
            "search": lookups.documents,
        }
        return section_rows(source, sections, makers)
    from endonym.synth import handbook

    return iter(handbook.documents(source.language))


STAGE = Stage(
    name="documents",
    version=1,
    kind="documents",
    config=DocumentsConfig,
    slots={
        "without": Slot("items", many=True, optional=True),
        "sections": Slot("sections", many=True, optional=True),
    },
    function=documents,
)
