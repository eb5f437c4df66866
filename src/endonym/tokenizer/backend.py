"""The Rust tokenizer: read with limits, asked with limits, and its dummy prefix.

Not limited: a pattern that stays just below Oniguruma's own limit at each place of a text is slow, and
a precompiled character map (SentencePiece's) may lengthen a text. Read folders that you do not trust
where time and memory are limited.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from endonym.core.errors import DataError

MAX_TOKENIZER = 1 << 28
"""Bytes of tokenizer.json; the largest published ones have some 4 * 10^7."""
MAX_GROWTH = 64
"""Times by which a normalizer may lengthen a text; Unicode's own NFKC reaches 18."""


def read_backend(file: Path) -> Backend:
    """tokenizer.json as a backend that neither cuts nor pads. DataError for one that cannot be read,
    is larger than any tokenizer, or would blow up what it is given."""
    check_size(file, MAX_TOKENIZER)
    try:
        backend = Backend.from_file(str(file))
    except BaseException as error:  # tokenizers raises bare Exception
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        raise DataError("tokenizer.json cannot be read", where=file, got=error) from None
    backend.no_truncation()  # some folders ship one; text beyond it would be lost in silence
    backend.no_padding()
    _check_growth(backend, file)
    return backend


@contextmanager
def regex_limit() -> Iterator[None]:
    """Oniguruma gives up a match after 10^7 retries, and tokenizers panics: that becomes a DataError."""
    try:
        yield
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise DataError(
            "the tokenizer gave up on a text",
            got=error,
            do="its pre-tokenizer's pattern backtracks without end; use another tokenizer",
        ) from None


def _is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"  # of Rust; it has no importable class


def check_size(file: Path, most: int) -> None:
    if (size := file.stat().st_size) > most:
        raise DataError(
            f"{file.name} is too large to be a tokenizer's",
            where=file,
            wanted=f"at most {most >> 20} MiB",
            got=f"{size >> 20} MiB",
        )


def _check_growth(backend: Backend, file: Path) -> None:
    """Refuses normalizers that write many letters for one: twenty such in a row fill any memory."""
    if backend.normalizer is None:
        return
    growth = 1.0
    for part in parts(json.loads(backend.normalizer.__getstate__())):
        if part["type"] == "Replace":
            pattern, content = part["pattern"], len(part["content"])
            growth *= max(1, content / max(1, len(pattern.get("String", ""))))
        elif part["type"] == "Prepend":
            growth *= 1 + len(part["prepend"])
    if growth > MAX_GROWTH:
        raise DataError(
            "the tokenizer's normalizer would make texts many times longer",
            where=file,
            wanted=f"at most {MAX_GROWTH} times",
            got=f"{growth:.3g} times",
        )


def parts(tree: Any) -> Iterator[dict]:
    """Every component inside a tokenizer.json part, sequences opened."""
    if isinstance(tree, dict):
        yield tree
        for key in ("normalizers", "pretokenizers"):
            for part in tree.get(key) or []:
                yield from parts(part)


def prefix_rule(state: dict) -> str:
    rules = {"none"}
    for part in (*parts(state["normalizer"]), *parts(state["pre_tokenizer"])):
        if part["type"] == "Prepend" or (part["type"] == "ByteLevel" and part["add_prefix_space"]):
            rules.add("each")
        if part["type"] == "Metaspace":
            scheme = part.get("prepend_scheme", "always")
            rules.add({"always": "each", "first": "first", "never": "none"}[scheme])
    return next(rule for rule in ("each", "first", "none") if rule in rules)


def without_prefix(tree: Any) -> Any:
    """The same normalizer or pre-tokenizer, adding nothing before the text."""
    if not isinstance(tree, dict) or tree["type"] == "Prepend":
        return None
    tree = dict(tree)
    for key in ("normalizers", "pretokenizers"):
        if key in tree:
            kept = [without_prefix(part) for part in tree[key]]
            tree[key] = [part for part in kept if part is not None]
    if tree["type"] == "Metaspace":
        tree["prepend_scheme"] = "never"
    if tree["type"] == "ByteLevel":
        tree["add_prefix_space"] = False
    return tree
