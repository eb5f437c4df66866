"""Benchmarks and training sets as data files: rows of JSON into items, by templates.

catalog/<name>.toml names the files under a data folder and how a row becomes an Item. Two kinds of
field, each compiled once:

    templates, Jinja text     task, id, doc_to_text, doc_to_context, doc_to_language, doc_to_reply
    expressions, a value      doc_to_choice (list of options), doc_to_target (index, or the gold
                              text), doc_to_checks (list), skip.when (true or false)

Both see the row's columns, `row` (its number, from 0) and the readers below; templates also see
`shown`, the options as numbered lines. doc_to_text is the prompt, doc_to_context the text before
the continuations where options are scored by likelihood. A field doc_to_reply (a worked solution)
makes the set usable as conversations.

A row that gives no item is counted under its reason and returned with the items: a score is always
of so many out of so many.
"""

import gzip
import json
import re
import tomllib
from ast import literal_eval
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError, UndefinedError
from pydantic import Field

from endonym.core.config import Config, nearest
from endonym.core.errors import DataError, RecipeError
from endonym.data.document import Conversation
from endonym.lang.citations import section_number
from endonym.lang.normalize import compose
from endonym.rewards.answer import last_boxed, number
from endonym.rewards.ifeval import checks_of
from endonym.tasks.base import Item
from endonym.tasks.choice import show


class Skip(Config):
    reason: str
    when: str


class Entry(Config):
    """One benchmark or set, as its data file says it."""

    description: str
    files: list[str]
    """Globs under the data folder."""
    language: str
    kind: str
    licence: str
    source: str
    split: str
    task: str
    id: str
    doc_to_text: str
    doc_to_target: str = "''"
    """Constraints need none: a reply is judged by its checks."""
    doc_to_choice: str = "[]"
    doc_to_context: str = ""
    doc_to_language: str | None = None
    """Language a reply must be in, where it is not always the set's own."""
    doc_to_checks: str = "[]"
    """Expression: what rewards read of the row besides the target, a list of {"type": ...}."""
    doc_to_reply: str = ""
    skip: list[Skip] = Field(default_factory=list)


# What an expression may call: readers of the ways in which exams write options and answers.

LITERAL_NEWLINE = re.compile(r"\\n(?![a-z])")  # not \neq, \nabla
NUMBERED = re.compile(r"(?:^|\s)\((\d{1,2})\)")
LETTERED = re.compile(r"^\(([a-j])\)", re.MULTILINE)
LONGEST_LITERAL = 100_000  # characters
LABEL = re.compile(r"\(([0-9]{1,2}|[a-j])\)")


def unescaped(text: str) -> str:
    """A text in which a line end was written as a backslash and an n, put right."""
    return LITERAL_NEWLINE.sub("\n", text)


def numbered(text: str) -> list[str]:
    """The options of "(1) ... (2) ...", if they are numbered 1, 2, 3 ... without a gap."""
    return _options(NUMBERED, text, lambda label: int(label))


def lettered(text: str) -> list[str]:
    """The options of lines "(a) ...", if they are lettered a, b, c ... without a gap."""
    return _options(LETTERED, text, lambda label: ord(label) - ord("a") + 1)


def _options(pattern: re.Pattern, text: str, place: Callable[[str], int]) -> list[str]:
    marks = list(pattern.finditer(text))
    if [place(mark[1]) for mark in marks] != list(range(1, len(marks) + 1)):
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    # The last option ends with its paragraph: an instruction may follow.
    options = [text[mark.end() : end] for mark, end in zip(marks, ends)]
    return [option.split("\n\n")[0].strip() for option in options]


def label(text: str) -> int | None:
    """The index named by the last "(3)" or "(c)"; by the first if the text begins with one."""
    labels = LABEL.findall(text)
    if not labels:
        return None
    chosen = labels[0] if LABEL.match(text.strip()) else labels[-1]
    return int(chosen) - 1 if chosen.isdecimal() else ord(chosen) - ord("a")


def arrives(text: str) -> bool:
    """Whether the working before the last \\boxed{} holds the boxed number in some writing."""
    work = text[: text.rfind("\\boxed")]
    wanted = number(last_boxed(text) or "")
    found = re.findall(
        r"\\[dt]?frac\{?-?\d+\}?\{?\d+\}?|-?\d+(?:\.\d+)?(?:/\d+)?", work.replace(",", "")
    )
    return wanted is not None and any(number(piece) == wanted for piece in found)


def citations(text: str) -> list[dict[str, str]]:
    """Sections to be cited, [{"type": "cites", "law_name", "section_num"}], out of a Python list written
    as text, [{'law': ..., 'sections': '69 ทวิ'}]; [] where it is none."""
    try:
        rows = literal_eval(text) if len(text) < LONGEST_LITERAL else []
        return [
            {
                "type": "cites",
                "law_name": str(row["law"]).strip(),
                "section_num": section_number(str(row["sections"])),
            }
            for row in rows
        ]
    except (ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError):
        return []


def thai_checks(name: str, kwargs: dict[str, Any]) -> list[dict[str, Any]]:
    """The checks of a constraint of thai_ifeval_train; what no program can tell is not among them."""
    from endonym.tasks.thai_constraints import checks_of as thai_checks_of

    return thai_checks_of(name, kwargs)[0]


READERS: dict[str, Any] = {
    "citations": citations,
    "ifeval_checks": checks_of,
    "thai_checks": thai_checks,
    "unescaped": unescaped,
    "numbered": numbered,
    "lettered": lettered,
    "label": label,
    "boxed": last_boxed,
    "is_number": lambda text: number(text) is not None,
    "arrives": arrives,
}


def names() -> list[str]:
    """The sets of the catalog."""
    folder = files("endonym.tasks").joinpath("catalog")
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


@lru_cache(maxsize=64)
def entry(name: str) -> Entry:
    """One entry of the catalog."""
    file = files("endonym.tasks").joinpath("catalog", f"{name}.toml")
    if not file.is_file():
        raise RecipeError(f"the catalog has no {name!r}", do=nearest(name, names()))
    return Entry.read(tomllib.loads(file.read_text(encoding="utf-8")), where=f"catalog/{name}.toml")


def load(
    name: str, path: Path | str, limit: int | None = None
) -> tuple[list[Item], dict[str, int]]:
    """Items of a set and, by reason, how many rows gave none.

    path: the data folder under which the entry's files lie, or one file. limit: at most so many
    items; rows after the last needed one are neither read nor counted.
    """
    made, skipped = [], {}
    for item, _ in _rows(name, Path(path), skipped):
        made.append(item)
        if limit is not None and len(made) >= limit:
            break
    return made, skipped


def load_conversations(
    name: str, path: Path | str, limit: int | None = None
) -> tuple[list[Conversation], dict[str, int]]:
    """The same rows as conversations: the item's prompt, then the row's own worked reply."""
    if not entry(name).doc_to_reply:
        raise RecipeError(
            f"the rows of {name!r} hold no reply to imitate",
            wanted=", ".join(other for other in names() if entry(other).doc_to_reply),
            do="use it for evaluation",
        )
    made, skipped = [], {}
    for item, reply in _rows(name, Path(path), skipped):
        said = {"role": "assistant", "content": reply}
        turns = [*item.messages, said]
        language = entry(name).language
        made.append(Conversation(item.id, turns, language, item.source, item.licence, item.task))
        if limit is not None and len(made) >= limit:
            break
    return made, skipped


@dataclass(frozen=True)
class _Compiled:
    templates: dict[str, Any]
    choice: Callable[..., Any]
    target: Callable[..., Any]
    checks: Callable[..., Any]
    skip: list[tuple[str, Callable[..., Any]]]


@lru_cache(maxsize=64)
def _compiled(name: str) -> _Compiled:
    """Every template and expression of an entry, compiled (0.3 ms an item against 3 when not)."""
    known = entry(name)
    environment = Environment(undefined=StrictUndefined, autoescape=False)
    environment.globals.update(READERS)
    texts = ("task", "id", "doc_to_text", "doc_to_context", "doc_to_reply")
    sources = {field: getattr(known, field) for field in texts}
    own = known.doc_to_language
    sources["doc_to_language"] = known.language if own is None else own
    expression = lambda text: environment.compile_expression(text, undefined_to_none=False)  # noqa: E731
    try:
        return _Compiled(
            {field: environment.from_string(text) for field, text in sources.items()},
            expression(known.doc_to_choice),
            expression(known.doc_to_target),
            expression(known.doc_to_checks),
            [(skip.reason, expression(skip.when)) for skip in known.skip],
        )
    except TemplateError as error:
        raise RecipeError(
            "a template does not compile", where=f"catalog/{name}.toml", got=str(error)
        ) from None


def _rows(name: str, path: Path, skipped: dict[str, int]) -> Iterator[tuple[Item, str]]:
    """(item, reply) of every row that gives one; the others are counted into `skipped`."""
    for number_, line in enumerate(_lines(name, path)):
        found = _item(name, number_, line)
        if isinstance(found, str):
            skipped[found] = skipped.get(found, 0) + 1
        else:
            yield found


def _item(name: str, number_: int, line: str) -> tuple[Item, str] | str:
    """An item and the row's reply, or the reason why there is none."""
    known, compiled = entry(name), _compiled(name)
    try:
        row = json.loads(line)
    except ValueError:
        return "not a JSON object"
    if not isinstance(row, dict):
        return "not a JSON object"
    row = _composed(row) | {"row": number_}
    try:
        for reason, holds in compiled.skip:
            if holds(**row):
                return reason
        options = compiled.choice(**row)
        target, checks = compiled.target(**row), compiled.checks(**row)
        row["shown"] = show(options)
        text = {field: template.render(**row) for field, template in compiled.templates.items()}
    except (UndefinedError, LookupError, TypeError, ValueError, AttributeError):
        return "a column is missing or of another kind"
    except DataError:
        return "a check that cannot be read"
    if known.kind == "choice":
        options = [str(option).strip() for option in options]
        if len(options) < 2 or not all(options):
            return "options not readable"
        if len(set(options)) < len(options):
            return "two options are the same"
        if not isinstance(target, int):
            return "no readable gold answer"
        if not 0 <= target < len(options):
            return "gold answer names no option"
    elif known.kind == "constraint":
        if not checks:
            return "no check"
    elif target is None or not str(target).strip():
        return "no readable gold answer"
    item = Item(
        id=text["id"],
        kind=known.kind,
        task=text["task"],
        language=text["doc_to_language"],
        messages=[{"role": "user", "content": text["doc_to_text"]}],
        answer=str(target),
        choices=list(options),
        checks=checks,
        context=text["doc_to_context"],
        split=known.split,
        source=known.source,
        licence=known.licence,
    )
    return item, text["doc_to_reply"]


def _composed(value: Any) -> Any:
    """The same JSON value with every text in one spelling (lang/normalize.py)."""
    if isinstance(value, str):
        return compose(value)
    if isinstance(value, list):
        return [_composed(part) for part in value]
    if isinstance(value, dict):
        return {key: _composed(part) for key, part in value.items()}
    return value


def _lines(name: str, path: Path) -> Iterator[str]:
    """The lines of an entry's files, gzip or plain, empty ones left out."""
    found = [path] if path.is_file() else []
    for pattern in [] if found else entry(name).files:
        found += sorted(path.glob(pattern))
    if not found:
        raise DataError(
            f"the files of {name!r} are not there",
            where=path,
            wanted=", ".join(entry(name).files),
            do="give the folder that holds them, or one file",
        )
    for file in found:
        opened = gzip.open if file.suffix == ".gz" else open
        try:
            with opened(file, "rt", encoding="utf-8-sig") as lines:
                yield from (line for line in lines if line.strip())
        except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
            raise DataError("a file cannot be read to its end", where=file, got=error) from None
