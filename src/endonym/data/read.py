"""Documents and conversations out of the files people have: every row used, or set aside with a reason.

Files: .jsonl .json .jsonl.gz .json.gz .jsonl.zst .parquet .txt (.txt.gz, .txt.zst), read in the order
given, a folder's files by name; rows stand in file order. Rows: {text}; {messages}; {prompt,
completion} (strings or message lists); alpaca {instruction, input, output}; sharegpt
{conversations: [{from, value}]}.

    rows_in = rows_used + rows_quarantined        exactly

A row that cannot be used goes to quarantine.jsonl with file, line and reason; above `limit` of all
rows the reading ends in an error. Blank lines are no rows; a byte-order mark and CRLF are read over.
Memory stays flat: a line is held, never a file (.json lists excepted).
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from endonym.core.errors import DataError
from endonym.data.document import Conversation, Document
from endonym.data.files import Broken, raw_rows
from endonym.data.shapes import Unusable, as_messages, as_text

Row = TypeVar("Row", Document, Conversation)


class Reading(Generic[Row]):
    """One pass over files as rows of `kind` (Document or Conversation). Iterate; then read the counts.

    files:      from find()
    quarantine: where the unusable rows are listed (JSON lines); it is written only if there are any
    limit:      share of unusable rows above which the end of the pass raises DataError
    columns:    {wanted name: name in the files}, e.g. {"text": "sentence"}
    unit:       what a row of a .txt file is: "paragraph" (blank lines between) or "file"
    language, source, licence: for rows that do not say; source defaults to the file's name
    """

    def __init__(
        self,
        files: Sequence[Path],
        kind: type[Row],
        *,
        quarantine: Path | None = None,
        limit: float = 0.01,
        columns: Mapping[str, str] | None = None,
        unit: str = "paragraph",
        language: str = "",
        source: str = "",
        licence: str = "",
    ):
        self.files, self.kind, self.quarantine, self.limit = list(files), kind, quarantine, limit
        self.columns, self.unit = dict(columns or {}), unit
        self.defaults = {"language": language, "source": source, "licence": licence}
        self.rows_used = self.rows_quarantined = 0
        self.reasons: Counter[str] = Counter()
        self.first: list[str] = []

    @property
    def rows_in(self) -> int:
        return self.rows_used + self.rows_quarantined

    def __iter__(self) -> Iterator[Row]:
        self.rows_used = self.rows_quarantined = 0
        self.reasons.clear()
        self.first.clear()
        if self.quarantine is not None:
            self.quarantine.unlink(missing_ok=True)
        seen: dict[int, int] = {}
        for file in self.files:
            for line, raw in raw_rows(file, self.unit):
                try:
                    row = self._row(raw, file, line, seen)
                except Unusable as problem:
                    self._set_aside(file, line, problem.reason, raw)
                else:
                    self.rows_used += 1
                    yield row
        self._check()

    def _row(self, raw: Any, file: Path, line: int, seen: dict[int, int]) -> Row:
        if isinstance(raw, Broken):
            raise Unusable(raw.reason)
        if not isinstance(raw, dict):
            raise Unusable(f"a row is not an object but {type(raw).__name__}")
        raw = raw | {name: raw[given] for name, given in self.columns.items() if given in raw}
        common = {name: raw.get(name) or default for name, default in self.defaults.items()}
        common["source"] = common["source"] or file.name.split(".")[0]
        if self.kind is Document:
            content = {"text": as_text(raw)}
        else:
            content = {"messages": as_messages(raw), "task": raw.get("task") or ""}
        common = {name: value if isinstance(value, str) else "" for name, value in common.items()}
        if not isinstance(content.get("task", ""), str):
            content["task"] = ""
        return self.kind(id=_identifier(raw, content, file, line, seen), **content, **common)

    def _set_aside(self, file: Path, line: int, reason: str, raw: Any) -> None:
        self.rows_quarantined += 1
        self.reasons[reason] += 1
        if len(self.first) < 3:
            self.first.append(f"{file.name}:{line}: {reason}")
        if self.quarantine is not None:
            excerpt = raw.excerpt if isinstance(raw, Broken) else json.dumps(raw, default=str)
            entry = {"file": str(file), "line": line, "reason": reason, "excerpt": excerpt[:200]}
            self.quarantine.parent.mkdir(parents=True, exist_ok=True)
            with self.quarantine.open("a", encoding="utf-8") as out:
                out.write(json.dumps(entry) + "\n")

    def _check(self) -> None:
        if not self.rows_in:
            raise DataError("the files hold no rows", where=", ".join(map(str, self.files[:3])))
        if self.rows_quarantined > self.limit * self.rows_in:
            raise DataError(
                f"{self.rows_quarantined} of {self.rows_in} rows cannot be used",
                where="; ".join(self.first),
                wanted=f"at most {self.limit:.3g} of the rows",
                got=f"{self.rows_quarantined / self.rows_in:.3g}",
                do=f"see {self.quarantine} and mend the file, or raise the limit"
                if self.quarantine
                else "mend the file, or raise the limit",
            )


def _identifier(raw: dict, content: dict, file: Path, line: int, seen: dict[int, int]) -> str:
    """The row's own id, or file:line. A second row with an id gets the line added; the same row
    again is refused."""
    given = raw.get("id")
    if not isinstance(given, (str, int)) or isinstance(given, bool) or given == "":
        return f"{file.name.split('.')[0]}:{line}"
    given = str(given)
    key, content_hash = hash(given), hash(json.dumps(content, sort_keys=True))
    if key not in seen:
        seen[key] = content_hash
        return given
    if seen[key] == content_hash:
        raise Unusable("the same id and content once more")
    return f"{given}:{line}"
