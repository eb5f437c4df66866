"""Rows out of the files people have: every row used, or set aside with a reason.

Files: data/files.py; they are read in the order given, rows stand in file order. Which shapes a row
may have, by the kind that is asked for (data/shapes.py):

    Document      {text}
    Conversation  {messages}; {prompt, completion}; alpaca {instruction, input, output}; sharegpt
                  {conversations: [{from, value}]}; each with `tools` and a row's `weight`
    Preference    {prompt, chosen, rejected}; {chosen, rejected}; alpaca and sharegpt with them; OpenAI's
                  {input, preferred_output, non_preferred_output}; each with `tools` and `margin`
    Labelled      {prompt, completion, label}
    Prompt        {prompt} and whatever else the row says

    rows_in = rows_used + rows_quarantined        exactly

A row that cannot be used goes to quarantine.jsonl with file, line and reason; above `limit` of all
rows the reading ends in an error. So it does where a file breaks off (cut short, damaged, a JSON list
with a wrong comma), for nobody knows how many rows are lost with its rest; only a limit of 1 takes what
stands before. Blank lines are no rows; a byte-order mark and CRLF are read over.
Memory stays flat: a row is held, never a file; of rows with ids, two hashes each.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

from endonym.core.errors import DataError
from endonym.data import shapes
from endonym.data.broken import Broken
from endonym.data.document import Conversation, Document, Labelled, Preference, Row
from endonym.data.files import raw_rows
from endonym.data.values import Unusable, number, string, weight


class Reading(Generic[Row]):
    """One pass over files as rows of `kind`. Iterate; then read the counts.

    files:      from find()
    kind:       Document, Conversation, Preference, Labelled or Prompt
    quarantine: where the unusable rows are listed (JSON lines); it is written only if there are any
    limit:      share of unusable rows above which the end of the pass raises DataError; below 1 it also
                does where a file broke off. Who stops reading earlier calls check()
    columns:    {wanted name: name in the files}, e.g. {"text": "sentence"}
    scores:     {name: name in the files} of numbers kept in Document.scores. A null is a row without
                that score; a row without the column, or with anything else in it, is unusable
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
        scores: Mapping[str, str] | None = None,
        unit: str = "paragraph",
        language: str = "",
        source: str = "",
        licence: str = "",
    ):
        self.files, self.kind, self.quarantine, self.limit = list(files), kind, quarantine, limit
        self.columns, self.scores, self.unit = dict(columns or {}), dict(scores or {}), unit
        self.defaults = {"language": language, "source": source, "licence": licence}
        self.rows_used = self.rows_quarantined = 0
        self.reasons: Counter[str] = Counter()
        self.first: list[str] = []
        self.broken_off: list[str] = []

    @property
    def rows_in(self) -> int:
        return self.rows_used + self.rows_quarantined

    def __iter__(self) -> Iterator[Row]:
        self.rows_used = self.rows_quarantined = 0
        self.reasons.clear()
        self.first.clear()
        self.broken_off.clear()
        if self.quarantine is not None:
            self.quarantine.unlink(missing_ok=True)
        seen: dict[int, int] = {}
        for file in self.files:
            for line, raw in raw_rows(file, self.unit):
                try:
                    row = self._row(raw, file, line, seen)
                except Unusable as problem:
                    self._set_aside(file, line, problem.reason, raw)
                except RecursionError:
                    self._set_aside(file, line, "nested too deeply", raw)
                else:
                    self.rows_used += 1
                    yield row
        self.check()

    def _row(self, raw: Any, file: Path, line: int, seen: dict[int, int]) -> Row:
        if isinstance(raw, Broken):
            raise Unusable(raw.reason)
        if not isinstance(raw, dict):
            raise Unusable(f"a row is not an object but {type(raw).__name__}")
        raw = raw | {name: raw[given] for name, given in self.columns.items() if given in raw}
        defaults = self.defaults | ({} if self.kind is Document else {"task": ""})
        defaults["source"] = defaults["source"] or file.name.split(".")[0]
        common = {
            name: string(value, name)
            if (value := raw.get(name)) and isinstance(value, str)
            else default
            for name, default in defaults.items()
        }
        content = self._content(raw)
        return self.kind(id=_identifier(raw, content, file, line, seen), **content, **common)

    def _content(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The fields of the row's kind but for id, language, source, licence and task."""
        if self.kind is Document:
            found: dict[str, Any] = {"text": shapes.as_text(raw)}
            return found | ({"scores": self._scores(raw)} if self.scores else {})
        if self.kind is Conversation:
            found = {"messages": shapes.as_messages(raw)}
            if raw.get("weight") is not None:
                found["weight"] = weight(raw["weight"])
        elif self.kind is Preference:
            names = ("prompt", "chosen", "rejected")
            found = dict(zip(names, shapes.as_preference(raw)))
            if raw.get("margin") is not None:
                found["margin"] = number(raw["margin"], "margin")
        elif self.kind is Labelled:
            found = dict(zip(("prompt", "completion", "label"), shapes.as_labelled(raw)))
        else:
            used = {"id", "task", "tools", *self.defaults, *self.columns.values()}
            found = dict(zip(("messages", "columns"), shapes.as_prompt(raw, used)))
        tools = shapes.as_tools(raw)
        return found | ({"tools": tools} if tools else {})

    def _scores(self, raw: dict[str, Any]) -> dict[str, float]:
        absent = [given for given in self.scores.values() if given not in raw]
        if absent:
            raise Unusable(f"no score {absent[0]}")
        return {
            name: number(raw[given], f"score {given}")
            for name, given in self.scores.items()
            if raw[given] is not None
        }

    def _set_aside(self, file: Path, line: int, reason: str, raw: Any) -> None:
        self.rows_quarantined += 1
        self.reasons[reason] += 1
        place = f"{file.name}:{line}: {reason}"
        if len(self.first) < 3:
            self.first.append(place)
        if isinstance(raw, Broken) and raw.is_rest:
            self.broken_off.append(place)
        if self.quarantine is not None:
            excerpt = raw.excerpt if isinstance(raw, Broken) else _written(raw)
            entry = {"file": str(file), "line": line, "reason": reason, "excerpt": excerpt[:200]}
            self.quarantine.parent.mkdir(parents=True, exist_ok=True)
            with self.quarantine.open("a", encoding="utf-8") as out:
                out.write(json.dumps(entry) + "\n")

    def check(self) -> None:
        """DataError where the rows read so far are not as they must be."""
        if not self.rows_in:
            raise DataError("the files hold no rows", where=", ".join(map(str, self.files[:3])))
        if self.broken_off and self.limit < 1:
            raise DataError(
                f"{len(self.broken_off)} of {len(self.files)} files cannot be read to the end",
                where="; ".join(self.broken_off[:3]),
                wanted="whole files: of what stands behind such a place nothing can be read",
                got=f"{self.rows_used} rows that can be used",
                do="fetch or write the file anew; a limit (quarantine) of 1 takes what can be read",
            )
        if self.rows_quarantined > self.limit * self.rows_in:
            raise DataError(
                f"{self.rows_quarantined} of {self.rows_in} rows cannot be used",
                where="; ".join(self.first),
                wanted=f"at most {self.limit:.3g} of the rows",
                got=f"{self.rows_quarantined / self.rows_in:.3g}",
                do=f"see {self.quarantine} and mend the file, or raise the limit (quarantine)"
                if self.quarantine
                else "mend the file, or raise the limit",
            )


def _written(raw: Any) -> str:
    """How a row that could be read begins, as JSON."""
    try:
        return json.dumps(raw, default=str)
    except (RecursionError, ValueError, TypeError):  # nested deeply; keys that are no strings
        return ""


def _identifier(raw: dict, content: dict, file: Path, line: int, seen: dict[int, int]) -> str:
    """The row's own id, or file:line. A second row with an id gets the line added; the same row
    again is refused."""
    given = raw.get("id")
    if not isinstance(given, (str, int)) or isinstance(given, bool) or given == "":
        return f"{file.name.split('.')[0]}:{line}"
    given = string(str(given), "id")
    key, content_hash = hash(given), hash(json.dumps(content, sort_keys=True))
    if key not in seen:
        seen[key] = content_hash
        return given
    if seen[key] == content_hash:
        raise Unusable("the same id and content once more")
    return f"{given}:{line}"
