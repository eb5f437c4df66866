"""What the text stages share: a source's settings, rows dropped because an exam holds them, a count."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config, ExternalPath


class Source(Config):
    """One of: builtin = "almanac" | "handbook", or path = "FILE, FOLDER or GLOB"."""

    builtin: Literal["", "almanac", "handbook"] = ""
    path: ExternalPath | None = None
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
    times: int = Field(default=1, gt=0)
    """How often each row is given: a small source in a large corpus."""
    tasks: list[str] = []
    """Skills of the almanac; empty: its own choice."""
    forms: list[str] = []
    """Forms of the almanac's conversations; empty: all."""
    seed: int = 0

    @property
    def shown(self) -> str:
        return self.name or self.builtin or Path(self.path or "").name


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
