"""Sections of statutes: the unit that is searched, read, cited and recited.

A table of them is sections.parquet (data/document.py). The readers make one section of each "<law> มาตรา
N" of the Thai acts as NitiBench publishes them and of each "제N조" of a Korean statute, and count what
they leave out, by reason.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endonym.data.document import read_table, write_table
from endonym.lang.citations import NUMBER, section_number, spelt, western
from endonym.lang.normalize import compose


@dataclass(frozen=True)
class Section:
    """One section of a law. book: the law's name; number: "12", "12/1", "69 ทวิ", "12의2"; "" for a text
    without sections; title: of the section, where it has one."""

    id: str
    book: str
    number: str
    title: str
    text: str
    language: str = ""
    source: str = ""
    licence: str = ""


def write_sections(path: Path | str, rows: Iterable[Section]) -> int:
    """A table out of sections; the number written. An empty one is an error."""
    return write_table(path, rows)


def read_sections(path: Path | str) -> list[Section]:
    """The sections of a table, in order."""
    return list(read_table(path, Section))


def listed(
    rows: Iterable[dict[str, Any]],
    *,
    language: str,
    source: str,
    licence: str,
    left_out: Counter[str],
) -> Iterator[Section]:
    """Sections out of rows that are sections already: {"book", "number", "text", ...}, the fields of
    Section; what a row does not say of the last three is the source's, and its id book and number."""
    for row in rows:
        told = {
            name: row.get(name)
            for name in ("id", "number", "title", "language", "source", "licence")
        }
        told = {name: "" if value is None else compose(str(value)) for name, value in told.items()}
        book, text = compose(row["book"]).strip(), compose(row["text"]).strip()
        number = section_number(told["number"])
        if not text:
            left_out["without text"] += 1
            continue
        yield Section(
            id=told["id"] or f"{book}/{number}",
            book=book,
            number=number,
            title=told["title"],
            text=text,
            language=told["language"] or language,
            source=told["source"] or source,
            licence=told["licence"] or licence,
        )


# --- Thai acts in chunks ------------------------------------------------------------------------

_BLANK = re.compile(r"\n\s*\n")
_SCHEDULE = re.compile(r"(บัญชี\S+)\n[^\n:]{1,40}: (\d+)\.\s*")
_HEAD = re.compile(rf"\s*มาตรา\s*({NUMBER})\s*")


def thai_law_acts(
    rows: Iterable[dict[str, Any]],
    *,
    language: str,
    source: str,
    licence: str,
    left_out: Counter[str],
) -> Iterator[Section]:
    """Sections out of rows {"id": "<act>#<chunk>", "title": name of the act, "text"}, as NitiBench's law
    files are cut: paragraphs "<name> มาตรา N <text>", some four thousand characters a chunk.

    What stands without such a head belongs to the section before it, in the same chunk or at the end of
    the one before; the parts of a number that comes twice in a row are one section. An item of a
    schedule ("บัญชีอัตราอากรแสตมป์" item 5) is a section of that name and number. Counted in `left_out`: the
    rest of a section whose chunk is not there, and what follows a head that cannot be read.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    current: tuple[str, str, str] | None = None
    last: tuple[str, int] | None = None
    for row in rows:
        act, _, chunk = str(row["id"]).partition("#")
        name = compose(str(row["title"])).strip()
        place = (act, int(chunk) if chunk.isdecimal() else 0)
        if last is None or place != (last[0], last[1] + 1):
            current = None
        last = place
        for paragraph in _paragraphs(compose(str(row["text"])), name):
            if not paragraph.startswith(name):
                if current is None:
                    left_out["its beginning is not here"] += 1
                else:
                    found[current].append(paragraph)
                continue
            rest = paragraph[len(name) :]
            number, text = _thai_head(rest)
            if number is None:
                left_out["no number can be read"] += 1
                current = None
                continue
            current = (act, name, number)
            found.setdefault(current, []).append(text)
    for (act, name, number), parts in found.items():
        text = "\n".join(part for part in parts if part).strip()
        if not text:
            left_out["without text"] += 1
            continue
        yield Section(f"{act}/{number}", name, number, "", text, language, source, licence)


def _paragraphs(text: str, name: str) -> list[str]:
    """The text cut before each head: a line that begins with the law's name and a section or schedule."""
    head = re.compile(rf"^(?={re.escape(name)}\s+(?:มาตรา|บัญชี))", re.MULTILINE)
    parts = [_BLANK.sub("\n", part).strip() for part in head.split(text)]
    return [part for part in parts if part]


def _thai_head(rest: str) -> tuple[str | None, str]:
    plain = western(rest[:200])  # one character for one, so that places agree
    if head := _HEAD.match(plain):
        return spelt(head[1]), rest[head.end() :].strip()
    if head := _SCHEDULE.match(plain.lstrip()):
        return f"{head[1]} {head[2]}", rest.lstrip()[head.end(1) :].strip()
    return None, ""


# --- Korean statutes ----------------------------------------------------------------------------

_KOREAN_HEAD = re.compile(r"^제(\d+)조(?:의(\d+))?[ \t]*(?:\(([^\n]*)\))?[ \t]*$", re.MULTILINE)
_SUPPLEMENT = re.compile(r"^부\s?칙\b.*$", re.MULTILINE)
_DIVISION = re.compile(r"^제\d+(?:편|장|절|관)(?:의\d+)?(?:\s.*)?$", re.MULTILINE)


def law_kr(
    rows: Iterable[dict[str, Any]],
    *,
    language: str,
    source: str,
    licence: str,
    left_out: Counter[str],
) -> Iterator[Section]:
    """Sections out of rows {"id", "text"}: a statute whose first line is its name, with lines "제N조
    (title)" or "제N조의M (title)" that stand alone.

    The supplementary provisions at its end (부칙), whose numbers begin again with each amendment, are
    left out and counted, and so are sections without text; headings of parts and chapters belong to no
    section.
    """
    for row in rows:
        name, _, text = compose(str(row["text"])).strip().partition("\n")
        supplement = _SUPPLEMENT.search(text)
        if supplement:
            left_out["supplementary provisions"] += 1
            text = text[: supplement.start()]
        heads = list(_KOREAN_HEAD.finditer(text))
        if not heads:
            left_out["no section can be found"] += 1
        ends = [head.start() for head in heads[1:]] + [len(text)]
        for head, end in zip(heads, ends):
            body = _DIVISION.sub("", text[head.end() : end])
            body = _BLANK.sub("\n", body).replace("\\.", ".").strip()
            if not body:
                left_out["without text"] += 1
                continue
            number = head[1] + (f"의{head[2]}" if head[2] else "")
            title = (head[3] or "").strip()
            yield Section(
                f"{row['id']}/{number}",
                name.strip(),
                number,
                title,
                body,
                language,
                source,
                licence,
            )
