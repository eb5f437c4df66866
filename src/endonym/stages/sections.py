"""Sections of statutes to search, read and recite: built in, or out of files of laws."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from endonym.core.config import Config, ExternalPath
from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.core.stage import Outcome, Stage

if TYPE_CHECKING:
    from endonym.data.sections import Section


class SectionSource(Config):
    """One of: builtin = "handbook" | "bylaws"; path = "FILE, FOLDER or PATTERN" with format."""

    builtin: Literal["", "handbook", "bylaws"] = ""
    path: ExternalPath | None = None
    format: Literal["", "sections", "thai_law_acts", "law_kr"] = ""
    """Of the files' rows: sections as data/sections.py has them, or laws to be cut into sections."""
    name: str = ""
    """Shown to readers; empty: the builtin's name or the file's."""
    language: str = ""
    licence: str = ""
    """Of a file's rows; builtin sources carry their own."""
    groups: list[str] = []
    """Of the bylaws: groups of towns (synth/bylaws.py)."""
    edition: int = 0
    """Of the bylaws of towns that are practised alone."""
    seed: int = 0
    """Of the bylaws."""
    optional: bool = False
    """Leave the handbook out, at 0 rows in the report, for a language that has none."""
    books: list[str] = []
    """Of files: only laws of these names; empty: all."""
    split: Literal["", "train", "test"] = ""
    """Of files: sections whose hash falls into `held_out` are "test", the others "train", "" is all."""
    held_out: float = Field(default=0.02, gt=0, lt=1)
    definitions: bool = False
    """Of files: not their sections, but the terms that these define (synth/definitions.py)."""
    longest: int | None = Field(default=None, gt=0)
    """Of files: only sections, or meanings of terms, of at most so many characters."""

    @property
    def shown(self) -> str:
        return self.name or self.builtin or Path(self.path or "").name

    def takes(self, section: "Section") -> bool:
        if self.books and section.book not in self.books:
            return False
        if not self.split:
            return True
        digest = hashlib.sha256(section.id.encode()).digest()
        is_test = int.from_bytes(digest[:8], "big") < self.held_out * 2**64
        return is_test == (self.split == "test")


class SectionsConfig(Config):
    sources: list[SectionSource]
    quarantine: float = Field(default=0.01, ge=0, le=1)
    """Largest share of a file's rows that may be unreadable before the run stops."""


def sections(config: SectionsConfig, context: Context, out: Path) -> Outcome:
    """sections.parquet: id, book, number, title, text, language, source, licence (data/sections.py).

    Figures: sections, books, characters, and by source what was left out and why.
    """
    from endonym.data.sections import write_sections

    made: list[Section] = []
    rows = []
    for source in config.sources:
        found, left_out = _of(source, config.quarantine)
        made += found
        rows.append(
            {
                "source": source.shown,
                "language": source.language,
                "rows": len(found),
                "books": len({section.book for section in found}),
                "licence": ", ".join(sorted({section.licence for section in found})),
                "dropped": sum(left_out.values()),
                "reasons": dict(left_out),
            }
        )
    counts = Counter(section.id for section in made)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DataError(
            f"{len(twice)} sections share an id",
            got=", ".join(twice[:3]),
            do="name each source once",
        )
    if not made:
        raise DataError("no section is left of any source", where="sources", got=rows)
    figures = {
        "sections": write_sections(out / "sections.parquet", made),
        "books": len({section.book for section in made}),
        "characters": sum(len(section.text) for section in made),
        "sources": rows,
    }
    return Outcome(figures, sorted({section.licence for section in made}))


def _of(source: SectionSource, quarantine: float) -> tuple[list["Section"], Counter[str]]:
    """The sections of a source and, by reason, how many there might have been."""
    _check(source)
    if source.builtin == "bylaws":
        from endonym.stages.builtin import named_groups
        from endonym.synth import bylaws

        groups = named_groups(source.groups)
        found = bylaws.sections(source.language, groups, seed=source.seed, edition=source.edition)
        return found, Counter()
    if source.builtin == "handbook":
        from endonym.stages.builtin import lacks_handbook

        if source.optional and lacks_handbook("handbook", source.language):
            return [], Counter()
        return list(_handbook(source.language)), Counter()
    left_out: Counter[str] = Counter()
    found = list(_read(source, left_out, quarantine))
    if source.definitions:
        from endonym.synth import definitions

        found, others = definitions.definitions(found)
        left_out += others
    found = [section for section in found if source.takes(section)]
    short = [one for one in found if source.longest is None or len(one.text) <= source.longest]
    left_out["too long"] += len(found) - len(short)
    return short, +left_out


def _handbook(language: str) -> Iterator["Section"]:
    from endonym.data.sections import Section
    from endonym.synth import handbook

    book = handbook.title(language)
    for each in handbook.sections(language):
        yield Section(
            id=f"handbook/{language}/{each.number}",
            book=book,
            number=str(each.number),
            title=each.title,
            text=each.text,
            language=language,
            source=handbook.SOURCE,
            licence=handbook.LICENCE,
        )


def _read(source: SectionSource, left_out: Counter[str], quarantine: float) -> Iterator["Section"]:
    """Sections out of files. DataError where too many rows cannot be read."""
    from endonym.data.files import find
    from endonym.data.sections import law_kr, listed, thai_law_acts

    columns: dict[str, tuple[str, ...]] = {
        "sections": ("book", "text"),
        "thai_law_acts": ("id", "title", "text"),
        "law_kr": ("id", "text"),
    }
    readers: dict[str, Callable[..., Iterator[Section]]] = {
        "sections": listed, "thai_law_acts": thai_law_acts, "law_kr": law_kr
    }  # fmt: skip
    files = find(source.path)
    rows = _rows(files, columns[source.format], left_out, quarantine)
    said = {"language": source.language, "source": source.shown, "licence": source.licence}
    yield from readers[source.format](rows, left_out=left_out, **said)


def _rows(
    files: list[Path], columns: tuple[str, ...], left_out: Counter[str], quarantine: float
) -> Iterator[dict[str, Any]]:
    """The rows that have text in these columns; the others are counted."""
    from endonym.data.broken import Broken
    from endonym.data.files import raw_rows

    count = bad = 0
    for file in files:
        for _, row in raw_rows(file):
            count += 1
            is_row = not isinstance(row, Broken) and isinstance(row, dict)
            if is_row and all(isinstance(row.get(name), str) for name in columns):
                yield row
                continue
            bad += 1
            left_out["broken" if not is_row else "a column is missing"] += 1
    if bad > quarantine * count:
        raise DataError(
            f"{bad} of {count} rows cannot be read",
            where=", ".join(map(str, files[:3])),
            wanted=f"text in the columns {', '.join(columns)}",
            do="mend the files, or raise quarantine",
        )


def _check(source: SectionSource) -> None:
    """RecipeError where a source names no place, two, or settings of the other."""
    if bool(source.builtin) == bool(source.path):
        raise RecipeError(
            "a source of sections names two places" if source.builtin else
            "a source of sections is incomplete",
            where=f"source {source.shown}".rstrip(),
            wanted='one of builtin = "handbook", builtin = "bylaws", or path = "FILE" with format',
        )  # fmt: skip
    if source.path and not source.format:
        raise RecipeError(
            "a source of sections does not say what its rows are",
            where=f"source {source.shown}",
            wanted='format = "sections", "thai_law_acts" or "law_kr"',
        )
    if not source.language:
        raise RecipeError(
            "a source of sections does not say its language",
            where=f"source {source.shown}",
            wanted='language = "th"',
        )
    of_files, of_bylaws = (
        ("format", "licence", "books", "split", "held_out", "definitions", "longest"),
        ("groups", "edition", "seed"),
    )
    others = {"handbook": of_files + of_bylaws, "bylaws": (*of_files, "optional")}
    unheard = others.get(source.builtin, (*of_bylaws, "optional"))
    for name in unheard:
        if name in source.model_fields_set and getattr(source, name) != (
            SectionSource.model_fields[name].get_default(call_default_factory=True)
        ):
            raise RecipeError(
                f"the setting {name!r} would not be heeded",
                where=f"source {source.shown}",
                do="leave it out",
            )


STAGE = Stage(
    name="sections",
    version=1,
    kind="sections",
    config=SectionsConfig,
    slots={},
    function=sections,
)
