"""What a document looks like in figures, and which of a pack's thresholds it misses.

    text -> Measures -> refused(measures, pack.filters) -> ["max_digits", ...]

A threshold min_X or max_X of `Filters` (lang/pack.py) is about the field X of `Measures`. The
measures are those of Gopher (Rae et al. 2021, appendix A), of FineWeb (Penedo et al. 2024) and two
of ours that need a script: own_script and digits. Words are those of lang/segment.py, so a Thai
document is measured in newmm's words and a Korean one in eojeol; a language without a word engine is
an error, not a guess.

Where the sources leave a choice: lines are those that hold anything; a repeated line counts from its
second time on; Gopher's stop words are counted once each; an n-gram's characters are those of its
words without the spaces, over those of all words, and an n-gram that overlaps itself is not counted
twice.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

from endonym.lang.pack import Filters, pack, stop_words
from endonym.lang.script import counts
from endonym.lang.segment import lines, words

BULLETS = ("-", "*", "•", "·", "●", "○", "▪", "◦", "∙", "‣")
ELLIPSES = ("...", "…")
EDGES = ".,!?;:\"'“”‘’()[]{}<>«»…·ฯๆ。、！？「」『』"  # clings to words that stand between spaces


@dataclass(frozen=True, slots=True)
class Measures:
    """Shares are 0 to 1. A share of nothing (letters of a text without letters) is 0."""

    words: int
    word_length: float
    """Mean code points a word, without the punctuation at its ends."""
    stop_words: int
    """Different stop words of the pack that occur."""
    own_script: float
    """Letters of the language's own scripts, of all letters (lang/script.py)."""
    word_letters: float
    """Words that hold a letter, of all words."""
    digits: float
    """Digits, of all characters that are no space."""
    symbols: float
    """The larger of "#" a word and ellipses a word."""
    bullet_lines: float
    ellipsis_lines: float
    line_ends: float
    """Lines that end in one of the pack's `line_ends`, closing quotation marks passed over."""
    short_lines: float
    duplicate_lines: float
    duplicate_line_characters: float
    lines: float
    """Lines a word."""
    top_ngrams: tuple[float, ...]
    """Characters covered by the most frequent 2-, 3- and 4-gram of words, of all words' characters."""
    duplicate_ngrams: tuple[float, ...]
    """Characters inside 5- to 10-grams that stood before, of all words' characters."""


def measures(text: str, language: str) -> Measures:
    """The figures of one document. Raises DataError where the language has no word engine."""
    filters = pack(language).filters
    found = bare_words(text, language)
    rows = lines(text)
    letters = counts(text)
    own = sum(letters.get(code, 0) for code in pack(language).scripts)
    solid = [character for character in text if not character.isspace()]
    again, again_characters = _repeated(rows)
    endings = tuple(filters.line_ends)
    return Measures(
        words=len(found),
        word_length=_share(sum(map(len, found)), len(found)),
        stop_words=len(stop_words_in(found, language)),
        own_script=_share(own, sum(letters.values())),
        word_letters=_share(sum(any(map(str.isalpha, word)) for word in found), len(found)),
        digits=_share(sum(map(str.isdecimal, solid)), len(solid)),
        symbols=_share(max(text.count("#"), sum(map(text.count, ELLIPSES))), len(found)),
        bullet_lines=_share(sum(row.startswith(BULLETS) for row in rows), len(rows)),
        ellipsis_lines=_share(sum(row.endswith(ELLIPSES) for row in rows), len(rows)),
        line_ends=_share(
            sum(row.rstrip("\"'”’)]」』").endswith(endings) for row in rows), len(rows)
        )
        if endings
        else 0.0,
        short_lines=_share(sum(len(row) <= filters.short_line for row in rows), len(rows)),
        duplicate_lines=_share(again, len(rows)),
        duplicate_line_characters=_share(again_characters, sum(map(len, rows))),
        lines=_share(len(rows), len(found)),
        top_ngrams=tuple(_top_ngram(found, n) for n in (2, 3, 4)),
        duplicate_ngrams=tuple(_duplicate_ngrams(found, n) for n in range(5, 11)),
    )


def bare_words(text: str, language: str) -> list[str]:
    """The words of lang/segment.py without the punctuation that clings to them between spaces."""
    return [word.strip(EDGES) or word for word in words(text, language)]


def refused(found: Measures, filters: Filters) -> list[str]:
    """The thresholds that a document misses, by their key in the pack; [] where it is kept."""
    missed = []
    for field in fields(found):
        value = getattr(found, field.name)
        low = getattr(filters, f"min_{field.name}", None)
        high = getattr(filters, f"max_{field.name}", None)
        if low is not None and value < low:
            missed.append(f"min_{field.name}")
        if isinstance(value, tuple):
            if any(part > most for part, most in zip(value, high, strict=True)):
                missed.append(f"max_{field.name}")
        elif high is not None and value > high:
            missed.append(f"max_{field.name}")
    return missed


def stop_words_in(found: Sequence[str], language: str) -> set[str]:
    """The stop words among some words, as the pack writes them.

    "the" is the whole word; "-에서" an ending: a longer word that ends so.
    """
    whole, endings, longest = _listed(language)
    seen = set()
    for word in {word.casefold() for word in found}:
        if word in whole:
            seen.add(word)
        for length in range(1, min(longest, len(word) - 1) + 1):
            if word[-length:] in endings:
                seen.add(f"-{word[-length:]}")
    return seen


def _listed(language: str) -> tuple[frozenset[str], frozenset[str], int]:
    return _parted(stop_words(language))


@lru_cache(maxsize=64)
def _parted(listed: frozenset[str]) -> tuple[frozenset[str], frozenset[str], int]:
    endings = frozenset(word[1:] for word in listed if word.startswith("-"))
    whole = frozenset(word for word in listed if not word.startswith("-"))
    return whole, endings, max(map(len, endings), default=0)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _repeated(rows: list[str]) -> tuple[int, int]:
    """How many rows stood before, and their characters."""
    seen = Counter(rows)
    return len(rows) - len(seen), sum(len(row) * (n - 1) for row, n in seen.items())


def _top_ngram(found: list[str], n: int) -> float:
    """Gopher: characters in occurrences of the most frequent n-gram; of equals the longest."""
    seen: Counter[tuple[str, ...]] = Counter()
    last: dict[tuple[str, ...], int] = {}
    for at in range(len(found) - n + 1):
        gram = tuple(found[at : at + n])
        if at >= last.get(gram, -n) + n:  # "a a a" holds "a a" once
            seen[gram] += 1
            last[gram] = at
    most = max(seen.values(), default=0)
    if most < 2:
        return 0.0
    longest = max(sum(map(len, gram)) for gram, times in seen.items() if times == most)
    return longest * most / sum(map(len, found))


def _duplicate_ngrams(found: list[str], n: int) -> float:
    """Gopher: characters in n-grams that stood before; overlapping ones count a word once."""
    seen = set()
    is_repeated = [False] * len(found)
    for at in range(len(found) - n + 1):
        gram = tuple(found[at : at + n])
        if gram in seen:
            is_repeated[at : at + n] = [True] * n
        seen.add(gram)
    characters = sum(len(word) for word, again in zip(found, is_repeated) if again)
    return _share(characters, sum(map(len, found)))
