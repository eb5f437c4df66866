"""Prompts to be answered, with what their judges read, out of files of TRL's prompt-only rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.stage import Outcome, Slot, Stage
from endonym.stages.source import Deduplicate, Source
from endonym.stages.sources import gather
from endonym.stages.tally import Tally


class PromptSource(Source):
    """One of: path = "FILE, FOLDER or PATTERN"; hub = "ORG/NAME". (Generated questions are items, which
    every stage that takes prompts takes as well.)"""

    builtin: Literal[""] = ""


class PromptsConfig(Config):
    sources: list[PromptSource]
    quarantine: float = Field(default=0.01, ge=0, le=1)
    """Largest share of a file's rows that may be unreadable before the run stops."""
    deduplicate: Deduplicate | None = None
    """Drop rows that ask what an earlier one asks; {} drops those with the same words."""


def prompts(
    config: PromptsConfig, context: Context, out: Path, *, without: dict[str, Artifact]
) -> Outcome:
    """prompts.parquet: id, messages, language, source, licence, task, columns, tools (data/document.py).

    A file's row is {"prompt": ...} and whatever else it says: those columns are what rewards are given,
    under the names that the file has (or `columns` gives them). Rows that hold a prompt of the exams
    `without` are dropped and counted; rows that cannot be read stand in quarantine.jsonl with file,
    line and reason.
    """
    from endonym.data.document import Prompt, write_table

    tally, columns = Tally(), {}
    rows = gather(
        config.sources,
        iter,
        Prompt,
        tally,
        without,
        out / "quarantine.jsonl",
        config.quarantine,
        deduplicate=config.deduplicate,
    )
    count = write_table(out / "prompts.parquet", _counted(rows, columns))
    figures = {"prompts": count, "characters": tally.characters, "columns": columns}
    return Outcome(figures | tally.figures(), tally.licences())


def _counted(rows: Iterator[Any], columns: dict[str, int]) -> Iterator[Any]:
    """The rows, and in how many of them each column says something."""
    for row in rows:
        for name, value in row.columns.items():
            if value is not None:
                columns[name] = columns.get(name, 0) + 1
        yield row


STAGE = Stage(
    name="prompts",
    version=1,
    kind="prompts",
    config=PromptsConfig,
    slots={"without": Slot("items", many=True, optional=True)},
    function=prompts,
)
