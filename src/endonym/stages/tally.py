"""How many rows each source gave, how many it did not and why: for the record and the report.

A source's row: source, language, rows, licence, quarantined, dropped; `reasons`, whose sum is
`dropped`; `exams`, the rows that held a prompt of each exam (a row may hold prompts of several); of a
Hub's dataset the commit, `revision`.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from endonym.stages.source import Source


class Tally:
    """Counts by source, for the record and the report."""

    def __init__(self) -> None:
        self.characters = 0
        self._rows: dict[str, dict[str, Any]] = {}
        self._licences: dict[str, dict[str, None]] = {}
        self._languages: dict[str, dict[str, None]] = {}

    def of(self, source: "Source") -> dict[str, Any]:
        return self._rows.setdefault(
            source.shown,
            {
                "source": source.shown,
                "language": source.language,
                "rows": 0,
                "licence": "",
                "quarantined": 0,
                "dropped": 0,
                "reasons": Counter(),
                "exams": Counter(),
            },
        )

    def take(self, source: "Source", row: Any) -> None:
        """Count a row that is kept."""
        from endonym.data.decontaminate import texts_of

        self.of(source)["rows"] += 1
        self.characters += sum(map(len, texts_of(row)))
        self._licences.setdefault(source.shown, {})[row.licence] = None
        self._languages.setdefault(source.shown, {})[row.language] = None

    def drop(self, source: "Source", reasons: Counter[str], exams: Counter[str]) -> None:
        """Count rows that are not, by reason and by the exams that they hold prompts of."""
        row_of = self.of(source)
        row_of["reasons"] += reasons
        row_of["exams"] += exams
        row_of["dropped"] += reasons.total()

    @property
    def rows(self) -> int:
        """Of all sources."""
        return sum(row["rows"] for row in self._rows.values())

    def told(self) -> str:
        """For each source what became of its rows, in words."""
        return "; ".join(
            f"{row['source']}: {row['rows']} rows, {row['quarantined']} unreadable, {row['dropped']} dropped"
            + "".join(f", {reason} {count}" for reason, count in row["reasons"].items())
            for row in self._rows.values()
        )

    def licences(self) -> list[str]:
        """Every licence that a row names."""
        return [name for names in self._licences.values() for name in names if name]

    def figures(self) -> dict[str, Any]:
        rows = [
            row
            | {
                # sources of one name share a row, each with its own language
                "language": _some(self._languages.get(name, {})) or row["language"],
                "licence": _some(self._licences.get(name, {})),
                "reasons": dict(row["reasons"]),
                "exams": dict(row["exams"]),
            }
            for name, row in self._rows.items()
        ]
        return {
            "quarantined": sum(row["quarantined"] for row in rows),
            "dropped": sum(row["dropped"] for row in rows),
            "sources": rows,
        }


def _some(names: Iterable[str]) -> str:
    """The first four names, and how many more there are."""
    named = [name for name in names if name]
    more = f" and {len(named) - 4} more" if len(named) > 4 else ""
    return ", ".join(named[:4]) + more
