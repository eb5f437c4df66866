"""How two texts are compared when a rule is checked: what a reader sees, nothing else.

Both sides are NFC, without invisible characters, and case-folded; never NFKC, which splits Thai sara
am into two code points. A zero-width space inside a forbidden word hides it from no reader, so it
hides it from no check either.
"""

import unicodedata
from collections.abc import Callable

import regex

from endonym.core.config import nearest
from endonym.core.errors import DataError
from endonym.lang.normalize import INVISIBLE, compose
from endonym.lang.pack import pack
from endonym.lang.segment import words

RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "exactly": lambda found, count: found == count,
    "at least": lambda found, count: found >= count,
    "at most": lambda found, count: found <= count,
    "less than": lambda found, count: found < count,
}
QUOTES = {'"': '"', "“": "”", "‘": "’", "「": "」", "『": "』", "«": "»"}
COMMAS = ",，、،"
MARKS = ".,!?;:\"'“”‘’«»()[]{}*_#…。！？"
# Format characters that hide nothing but themselves; joiners stay, as emoji and Indic letters need
# them, but for those between Latin, Thai or Hangul letters.
_JOINER = regex.compile(r"(?<=[\p{Latin}\p{Thai}\p{Hangul}])[\u200c\u200d]+")
_HIDDEN = {**INVISIBLE, 0x00AD: None, 0x180E: None, **dict.fromkeys(range(0x2061, 0x2065))}


def visible(text: str) -> str:
    """NFC, without what no reader sees."""
    text = compose(text)
    return text if text.isascii() else _JOINER.sub("", text.translate(_HIDDEN))


def fold(text: str) -> str:
    return visible(text).casefold()


def is_blank(text: str) -> bool:
    """Whether a reader sees nothing: spaces, controls and formats alone."""
    return all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf", "Mn") for c in visible(text))


def holds(found: int, count: int, relation: str) -> bool:
    """Whether a count stands in the relation. An unknown relation is a DataError."""
    if relation not in RELATIONS:
        raise DataError(
            f"unknown relation {relation!r} in a check", do=nearest(relation, list(RELATIONS))
        )
    return RELATIONS[relation](found, count)


def has_word(text: str, word: str, language: str) -> bool:
    """Whether `word` stands in the text as a word of its own, as the language cuts words.

    Both are folded already. Where words cannot be cut, being part of the text is enough.
    """
    if word not in text or pack(language).count.words == "none":
        return word in text
    pieces = bare_words(text, language)
    if "Hang" in pack(language).scripts:  # particles are glued on: 학교 is in 학교에서
        return any(piece.startswith(word) for piece in pieces)
    wanted = bare_words(word, language)
    if not wanted:  # a sign, which is no word: being there is enough
        return True
    spans = range(len(pieces) - len(wanted) + 1)
    return any(pieces[at : at + len(wanted)] == wanted for at in spans)


def bare_words(text: str, language: str) -> list[str]:
    """The words of a text without the marks around them."""
    return [piece.strip(MARKS) for piece in words(text, language)]
