"""The texts and tokenizers that a command is given, read and checked.

A TEXT is a data file, a folder or a pattern (data/files.py says which), or LANGUAGE=PATH: then its
letters must be of that language's scripts.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from endonym.core.errors import DataError

if TYPE_CHECKING:
    from endonym.tokenizer.folder import Tokenizer

CODE = re.compile(r"[a-z]{2,3}(?:[-_][A-Za-z0-9]+)*")
GENERIC = {"tokenizer", "vocab", "merges", "vocab_scores"}
"""Names of files that say nothing: the folder's name is shown."""


def corpus(given: str, language: str, field: str) -> tuple[str, str, list[str]]:
    """(language, label, texts) of a TEXT; its letters are checked against its language."""
    from endonym.data.document import Document
    from endonym.data.files import find
    from endonym.data.read import Reading
    from endonym.tokenizer.corpus import Corpus

    code, _, path = given.partition("=")
    if not path or not CODE.fullmatch(code) or Path(given).exists():
        code, path = language, given
    rows = Reading(find(path), Document, columns={"text": field} if field != "text" else None)
    try:
        texts = list(Corpus(((f"{path}, row {row.id}", row.text) for row in rows), code))
    except DataError as error:
        error.where = error.where or path
        raise
    return code, label(Path(path)), texts


def by_language(given: Iterable[str], language: str, field: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in given:
        code, _, texts = corpus(text, language, field)
        found.setdefault(code, []).extend(texts)
    return found


def drawn(texts: list[str], number: int | None, seed: int) -> list[str]:
    from random import Random

    if number is None or number >= len(texts):
        return texts
    return [texts[at] for at in sorted(Random(seed).sample(range(len(texts)), number))]


def sides(file: Path) -> dict[str, list[str]]:
    """Language -> sentences of a file of parallel rows {"en": ..., "th": ..., ...}.

    Fields named by a language code count; "id" only where it holds sentences (Indonesian).
    """
    from endonym.data.files import Broken, find, raw_rows

    (path, *_) = find(file)
    found: dict[str, list[str]] = {}
    for line, row in raw_rows(path):
        if isinstance(row, Broken) or not isinstance(row, dict):
            reason = row.reason if isinstance(row, Broken) else "not an object"
            raise DataError("a parallel row cannot be read", where=f"{path}:{line}", got=reason)
        if not found:
            texts = {key: value for key, value in row.items() if isinstance(value, str)}
            codes = [key for key in texts if CODE.fullmatch(key)]
            found = {key: [] for key in codes if key != "id" or " " in texts[key]}
        for code, side in found.items():
            if not isinstance(row.get(code), str):
                raise DataError(f"a parallel row lacks its {code!r}", where=f"{path}:{line}")
            side.append(row[code])
    if len(found) < 2:
        raise DataError(
            "not a parallel text",
            where=path,
            wanted='rows with a field for each of two or more languages: {"en": ..., "th": ...}',
            got=", ".join(found) or "no field named by a language code",
        )
    return found


def opened(given: list[str], pattern: str | None) -> "dict[str, Tokenizer]":
    from endonym.tokenizer.read import read

    found: dict[str, Tokenizer] = {}
    for each in given:
        name, _, path = each.partition("=")
        if not path or Path(each).exists():
            name, path = label(Path(each)), each
        name = name if name not in found else str(path)
        found[name] = read(path, pattern)
    return found


def label(path: Path) -> str:
    """A short name for a file: what stands before its first point, or else its folder's name."""
    name = path.resolve().name.split(".")[0]
    return path.resolve().parent.name if name in GENERIC else name
