"""Conversations to imitate, out of generated tasks, the handbook, the bylaws, sections of laws, or files of
TRL's row types."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
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


class ConversationsConfig(Config):
    sources: list[Source]
    quarantine: float = Field(default=0.01, ge=0, le=1)
    """Largest share of a file's rows that may be unreadable before the run stops."""
    deduplicate: Deduplicate | None = None
    """Drop rows that say what an earlier one says; {} drops those with the same words."""


def conversations(
    config: ConversationsConfig,
    context: Context,
    out: Path,
    *,
    without: dict[str, Artifact],
    sections: dict[str, Artifact] | None = None,
) -> Outcome:
    """conversations.parquet: id, messages, language, source, licence, task, tools, weight
    (data/document.py).

    Rows that hold a prompt of the exams `without` or that repeat another are dropped and counted by
    reason; rows that cannot be read stand in quarantine.jsonl with file, line and reason.
    """
    from endonym.data.document import Conversation, write_table

    tally = Tally()
    rows = gather(
        config.sources,
        partial(_builtin, sections=sections),
        Conversation,
        tally,
        without,
        out / "quarantine.jsonl",
        config.quarantine,
        deduplicate=config.deduplicate,
    )
    count = write_table(out / "conversations.parquet", rows)
    figures = {"conversations": count, "characters": tally.characters, **tally.figures()}
    return Outcome(figures, tally.licences())


def _builtin(source: Source, sections: dict[str, Artifact] | None) -> Iterator:
    if source.builtin == "almanac":
        from endonym.synth import almanac

        if source.amount is None:
            raise RecipeError("the almanac needs to know how many rows", wanted="amount = 2000")
        rows = almanac.conversations(
            source.language,
            seed=source.seed,
            amount=source.amount,
            tasks=source.skills(),
            forms=source.forms or almanac.FORMS,
        )
        return joined(rows, source.turns)
    if source.builtin == "bylaws":
        from endonym.synth import bylaws, searches

        how = {"tasks": source.tasks or bylaws.TASKS}
        return statute_rows(
            source, partial(bylaws.conversations, **how), partial(searches.conversations, **how)
        )
    if source.builtin == "sections":
        from endonym.synth import definitions, lookups

        makers = {"question": definitions.conversations, "search": lookups.conversations}
        return section_rows(source, sections, makers)
    from endonym.synth import handbook

    return iter(handbook.conversations(source.language))


def joined(rows: Iterator, most: int) -> Iterator:
    """Rows put together into conversations of 1, 2 ... `most`, 1, 2 ... of them, none left over."""
    for number in cycle(range(1, most + 1)):
        group = list(islice(rows, number))
        if not group:
            return
        messages = [message for row in group for message in row.messages]
        yield replace(group[0], messages=messages)


STAGE = Stage(
    name="conversations",
    version=2,  # 2: tools and weights are kept, function_call turns become tool_calls
    kind="conversations",
    config=ConversationsConfig,
    slots={
        "without": Slot("items", many=True, optional=True),
        "sections": Slot("sections", many=True, optional=True),
    },
    function=conversations,
)
