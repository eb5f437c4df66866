"""What the text stages share: a source's settings, rows dropped because an exam holds them, a count."""

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config, ExternalPath
from endonym.core.errors import RecipeError


class Source(Config):
    """One of: builtin = "almanac" | "handbook", or path = "FILE or FOLDER"."""

    builtin: Literal["", "almanac", "handbook"] = ""
    path: ExternalPath | None = None
    catalog: str = ""
    """The catalog's entry (tasks/catalog) that knows how to read the file; for conversations."""
    name: str = ""
    """Shown to readers; empty: the builtin's name or the file's."""
    language: str = ""
    licence: str = ""
    """Of a file's rows; builtin sources carry their own."""
    amount: int | None = Field(default=None, gt=0)
    """At most so many rows; the almanac needs it."""
    split: Literal["", "train", "test"] = ""
    """Of a file: rows whose hash falls into `held_out` are "test", the others "train", "" is all.
    Of a builtin source: its own split ("" is train)."""
    held_out: float = Field(default=0.02, gt=0, lt=1)
    optional: bool = False
    """Leave the handbook out, at 0 rows in the report, for a language that has none."""
    times: int = Field(default=1, gt=0)
    """How often each row is given: a small source in a large corpus."""
    turns: int = Field(default=1, gt=0)
    """Of the almanac's conversations: 1, 2 ... up to so many questions each, in turn."""
    tasks: list[str] = []
    """Skills of the almanac; empty: all that it writes about in the language."""
    skip: list[str] = []
    """Skills left out of these."""
    forms: list[str] = []
    """Forms of the almanac's conversations; empty: all."""
    seed: int = 0

    def skills(self) -> list[str]:
        """The almanac's skills that this source asks for."""
        return skills(self.language, self.tasks, self.skip)

    @property
    def shown(self) -> str:
        return self.name or self.builtin or Path(self.path or "").name

    def takes(self, row_id: str) -> bool:
        """Whether a file's row belongs to the split that is asked for; a hash of its id decides."""
        if not self.split:
            return True
        digest = hashlib.sha256(row_id.encode()).digest()
        is_test = int.from_bytes(digest[:8], "big") < self.held_out * 2**64
        return is_test == (self.split == "test")


def skills(language: str, tasks: list[str], skip: list[str]) -> list[str]:
    """`tasks`, or all that the almanac writes about in the language, without those in `skip`."""
    from endonym.synth.almanac import tasks_of

    return [skill for skill in tasks or tasks_of(language) if skill not in skip]


def lacks_handbook(builtin: str, language: str) -> bool:
    """Whether a source is the handbook of a language in which there is none."""
    from endonym.synth import handbook

    return builtin == "handbook" and language not in handbook.languages()


class Tally:
    """Counts by source, for the record and the report."""

    def __init__(self) -> None:
        self.characters = 0
        self._rows: dict[str, dict[str, Any]] = {}

    def of(self, source: Source) -> dict[str, Any]:
        return self._rows.setdefault(
            source.shown,
            {
                "source": source.shown,
                "language": source.language,
                "rows": 0,
                "licence": "",
                "quarantined": 0,
                "dropped": 0,
            },
        )

    def licences(self) -> list[str]:
        return [row["licence"] for row in self._rows.values() if row["licence"]]

    def figures(self) -> dict[str, Any]:
        rows = list(self._rows.values())
        return {
            "quarantined": sum(row["quarantined"] for row in rows),
            "dropped": sum(row["dropped"] for row in rows),
            "sources": rows,
        }


def gather(
    sources: list[Source],
    builtin: Callable[[Source], Iterator[Any]],
    kind: type,
    tally: Tally,
    without: dict[str, Artifact],
    quarantine: Path,
    limit: float,
) -> Iterator[Any]:
    """Rows of every source in order: read, split, decontaminated, counted into `tally`.

    builtin: rows of a source that is not a file. quarantine: the file for rows that cannot be read.
    """
    from endonym.data.decontaminate import Decontaminator
    from endonym.data.files import find
    from endonym.data.read import Reading

    prompts = [prompt for exam in without.values() for prompt in _prompts(exam)]
    for number, source in enumerate(sources):
        row_of = tally.of(source)
        if source.optional and lacks_handbook(source.builtin, source.language):
            continue
        reading = None
        if source.builtin:
            rows = builtin(source)
        elif source.catalog and source.path:
            from endonym.tasks import catalog

            found, skipped = catalog.load_conversations(source.catalog, Path(source.path))
            row_of["quarantined"] += sum(skipped.values())
            rows = (row for row in found if source.takes(row.id))
        elif source.path:
            aside = quarantine.with_name(f"{quarantine.stem}.{number}{quarantine.suffix}")
            reading = Reading(
                find(source.path),
                kind,
                quarantine=aside,
                limit=limit,
                language=source.language,
                source=source.shown,
                licence=source.licence,
            )
            rows = (row for row in reading if source.takes(row.id))
        else:
            raise RecipeError(
                "a source is incomplete",
                wanted='builtin = "almanac" | "handbook", or path = "FILE"',
            )
        clean = Decontaminator(prompts)
        for row in islice(clean(rows), source.amount):
            row_of["rows"] += 1
            row_of["licence"] = row_of["licence"] or row.licence
            tally.characters += _length(row)
            for _ in range(source.times):
                yield row
        row_of["dropped"] += sum(clean.counts.values()) - clean.counts["kept"]
        if reading is not None:
            row_of["quarantined"] += reading.rows_quarantined


def _prompts(exam: Artifact) -> Iterator[str]:
    """What of an exam must not stand in training data: its questions, word for word."""
    from endonym.tasks.base import read_items

    for item in read_items(exam.file("items.parquet")):
        yield item.messages[-1]["content"]


def _length(row: Any) -> int:
    if hasattr(row, "text"):
        return len(row.text)
    return sum(len(message["content"] or "") for message in row.messages)
