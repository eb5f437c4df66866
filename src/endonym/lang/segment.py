"""A text cut into words and sentences, in the way its language is counted.

words: Thai by the newmm dictionary segmenter (nlpo3 with pythainlp's dictionary), Korean by eojeol
and spaced languages by spaces; white space and pieces without a letter or digit are dropped (the
usual port of IFEval to Thai counts spaces as words). A language written without spaces and without
a segmenter here is an error, not a guess.

sentences: lines, and within a line units ended by . ! ? or their full-width, Devanagari and Khmer
relatives followed by a space or the end. Thai has no full stop: a Thai line is one sentence unless
it carries such a mark, so prompts that count in Thai ask for lines.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from endonym.core.errors import DataError
from endonym.lang.normalize import compose
from endonym.lang.pack import pack

# Not after an initial or a title: "U.S. Virgin Islands" and "St. Lucia" stay whole.
TERMINATOR = re.compile(
    r"(?<=[.!?…])(?<!\b[A-Z]\.)(?<!\b(?:St|Mr|Ms|Dr)\.)(?<!\bMrs\.)[\"'”’)\]]*\s+"
    r"|(?<=[。！？។៕])[\"'”’)\]]*\s*"
)


PIECE = re.compile(r"[\u0e00-\u0e7f]+|\s+|[^\s\u0e00-\u0e7f]+")


def segmenter(language: str) -> Callable[[str], list[str]] | None:
    """Line -> words that join to the line again, white space included; None where spaces part words.

    For learning a vocabulary: no merge is to cross a word. A language written without spaces and
    without a segmenter here gives None too: its vocabulary is learnt without words.
    """
    return _thai_words if pack(language).segmenter == "newmm" else None


def _thai_words(line: str) -> list[str]:
    return [word for piece in PIECE.findall(line) for word in _cut(piece)]


@lru_cache(maxsize=1 << 17)
def _cut(piece: str) -> tuple[str, ...]:
    """A run of Thai as words, remembered: most runs of a corpus come again (a clause, a name).

    nlpo3 is newmm in Rust, about five times faster here with the same dictionary; safe mode works in
    windows, without exponential time on ambiguous runs.
    """
    if not "\u0e00" <= piece[0] <= "\u0e7f":
        return (piece,)
    from pythainlp.tokenize.nlpo3 import segment

    return tuple(segment(piece, safe_mode=True))


def words(text: str, language: str) -> list[str]:
    """The words of a text, in order."""
    text = compose(text)
    kind = pack(language).segmenter
    if kind == "newmm":
        pieces = _thai_words(text)
    elif kind == "space":
        pieces = text.split()
    else:
        raise DataError(
            f"no word segmenter for {language!r}",
            wanted="a language written with spaces, or Thai",
            do="count lines or sentences instead, or add a segmenter to lang/segment.py",
        )
    return [piece for piece in pieces if any(character.isalnum() for character in piece)]


def lines(text: str) -> list[str]:
    """The lines of a text that hold anything."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, by the rule at the head of this file (any language)."""
    found = []
    for line in lines(compose(text)):
        found += [unit.strip() for unit in TERMINATOR.split(line) if unit.strip()]
    return [unit for unit in found if any(character.isalnum() for character in unit)]
