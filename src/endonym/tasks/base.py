"""A task serves imitation, reinforcement and evaluation alike: it makes targets and checks replies.

    target(item)        what an assistant should have said: supervised fine-tuning
    check(item, reply)  how good a reply is, and why: reward and score

There are three kinds; every benchmark and every generated question is an Item of one of them.

    answer      a short free answer with one right value    tasks/answer.py
    choice      one of several continuations                tasks/choice.py
    constraint  a reply that must obey checkable rules      tasks/constraints.py
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from endonym.core.config import nearest
from endonym.core.errors import DataError
from endonym.data.document import Prompt

KINDS = ("answer", "choice", "constraint")


@dataclass(frozen=True)
class Item:
    """One question with what is needed to judge a reply.

    id        unique within its source; says where the item comes from
    kind      "answer" | "choice" | "constraint"
    task      what it measures, e.g. "numbers"; scores are grouped by it
    language  ISO code of the language the reply must be in; "" = any (a bare number, for instance)
    messages  the prompt: roles system and user
    answer    gold: the text; for a choice the index as a string; for a constraint a reply that
              passes its own checks
    choices   the continuations, in order, without surrounding space
    checks    constraints: [{"type": name, **arguments}], see tasks/constraints.py
    context   choice by likelihood: the text before the continuations; "" = the messages
    split     "train" | "test"
    source, licence  where it comes from and under which terms
    """

    id: str
    kind: str
    task: str
    language: str = ""
    messages: list[dict[str, str]] = field(default_factory=list)
    answer: str = ""
    choices: list[str] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    context: str = ""
    split: str = "test"
    source: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Verdict:
    """score 0..1; the reason in a few stable words; what was understood of the reply, if anything."""

    score: float
    reason: str
    parsed: str | None = None


def as_prompt(item: Item) -> Prompt:
    """The item as a prompt to be answered in training: what its judge must know stands in its columns."""
    names = ("kind", "answer", "choices", "checks")
    return Prompt(
        item.id,
        item.messages,
        item.language,
        item.source,
        item.licence,
        item.task,
        columns={name: getattr(item, name) for name in names},
    )


class Task(Protocol):
    def target(self, item: Item) -> str: ...

    def check(self, item: Item, reply: str) -> Verdict: ...


def task_for(kind: str) -> Task:
    """The task that serves items of this kind."""
    from endonym.tasks import answer, choice, constraints

    tasks = {"answer": answer.TASK, "choice": choice.TASK, "constraint": constraints.TASK}
    if kind not in tasks:
        raise DataError(f"no task serves items of kind {kind!r}", do=nearest(kind, list(tasks)))
    return tasks[kind]


JSON_COLUMNS = ("messages", "choices", "checks")


def write_items(path: Path | str, items: Iterable[Item]) -> int:
    """A Parquet table out of items; the number written. An empty table is allowed.

    Every column is a string (lists as JSON), so the schema is the same for all three kinds.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    items = list(items)
    columns: dict[str, list[str]] = {}
    for column in fields(Item):
        values = [getattr(item, column.name) for item in items]
        if column.name in JSON_COLUMNS:
            values = [json.dumps(value, ensure_ascii=False) for value in values]
        columns[column.name] = values
    schema = pa.schema([(column.name, pa.string()) for column in fields(Item)])
    pq.write_table(pa.table(columns, schema=schema), path, compression="zstd")
    return len(items)


def read_items(path: Path | str) -> list[Item]:
    """The items of a table written by write_items, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise DataError("there is no such table of items", where=path, wanted="a Parquet file")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(
            "the file is not a Parquet table", where=path, got=str(error).splitlines()[0]
        ) from None
    wanted = [column.name for column in fields(Item)]
    absent = [name for name in wanted if name not in table.column_names]
    if absent:
        raise DataError(
            f"the table of items has no column {absent[0]!r}",
            where=path,
            wanted=", ".join(wanted),
            got=", ".join(table.column_names),
        )
    rows = table.select(wanted).to_pylist()
    return [
        Item(**{name: json.loads(v) if name in JSON_COLUMNS else v for name, v in row.items()})
        for row in rows
    ]
