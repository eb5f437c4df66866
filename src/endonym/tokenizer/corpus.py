"""Texts to learn a vocabulary from: read as often as needed, checked as they pass, never a giant line.

    Corpus         texts of anything iterable, with their places, for messages that name them
    Mixture        texts of several languages in a given ratio of bytes, interleaved
    equal_lengths  as many characters of one language as of every other
    lines          texts as lines, each at most LONGEST_LINE characters

The trainer counts pre-tokens, so the order of texts changes nothing; what a mixture decides is how
much of each language is counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import TypeVar
from unicodedata import category

from endonym.core.errors import DataError
from endonym.lang.pack import pack
from endonym.lang.script import counts
from endonym.tokenizer.pretokenize import is_letter

Segmenter = Callable[[str], list[str]]
"""A line -> its words, which joined give the line again (pythainlp's newmm with white space kept)."""

LONGEST_LINE = 1 << 14
"""Characters handed to the tokenizer at once. It keeps an alignment for every byte of them, and 256
lines wait for it at a time."""
NEAR = 1 << 10
"""How far back from there a border is looked for."""

FOUND = 1_000
"""Letters of a declared language's scripts after which it counts as found ..."""
SHARE = 0.01
"""... if they are this share of all letters looked at."""
HEAD = 1_000
"""Characters of a text that are looked at for its script."""

Where = TypeVar("Where")
Text = str | bytes | tuple[Where, str | bytes]


class Corpus:
    """Texts that can be read again and again: strings, UTF-8 bytes, or (where, either) pairs.

    language: its scripts must be found among the letters ("" asks for nothing)
    limit:    UTF-8 bytes after which the texts end; the last one is cut there

    Iterating raises DataError for bytes that are no UTF-8 (where, and at which byte), for lone
    surrogates, for texts without a single character that is not white space, and for a declared
    language whose script is not there (what is there is said).
    """

    def __init__(self, texts: Iterable[Text], language: str = "", *, limit: int | None = None):
        self.texts = list(texts) if iter(texts) is texts else texts
        self.language, self.limit = language, limit

    def __iter__(self) -> Iterator[str]:
        return checked(self.texts, self.language, self.limit)


def checked(texts: Iterable[Text], language: str = "", limit: int | None = None) -> Iterator[str]:
    """One pass over the texts of a Corpus."""
    wanted = frozenset(pack(language).scripts) if language else frozenset()
    found: Counter[str] = Counter()
    is_found, is_empty = not wanted, True
    for number, given in enumerate(texts, start=1):
        where, text = given if isinstance(given, tuple) else (f"text {number}", given)
        raw = _encoded(text, where)
        is_last = limit is not None and len(raw) >= limit
        if is_last:
            text = raw[:limit].decode("utf-8", "ignore")  # no half character at the end
        elif isinstance(text, bytes):
            text = raw.decode()
        is_empty = is_empty and not text.strip()
        if not is_found:
            found.update(counts(text[:HEAD]))
            own = sum(found[script] for script in wanted)
            is_found = own >= FOUND and own >= SHARE * found.total()
        yield text
        if is_last:
            break
        limit = limit and limit - len(raw)
    if is_empty:
        raise DataError(
            "there is no text to learn from", wanted="texts with something but white space in them"
        )
    if not is_found:
        _require(wanted, found, language)


def _encoded(text: str | bytes, where: object) -> bytes:
    try:
        if isinstance(text, bytes):
            text.decode()
            return text
        return text.encode()
    except UnicodeDecodeError as error:
        raise DataError(
            "a text is not UTF-8",
            where=f"{where}, byte {error.start}",
            got=f"{text[error.start : error.start + 8].hex(' ')} ({error.reason})",
            do="convert the file to UTF-8, or leave it out",
        ) from None
    except UnicodeEncodeError as error:
        raise DataError(
            "a text holds half of a surrogate pair",
            where=f"{where}, character {error.start}",
            got=f"U+{ord(text[error.start]):04X}",
            do="decode the file again as UTF-8 (or as UTF-16 where it is that)",
        ) from None


def _require(wanted: frozenset[str], found: Counter[str], language: str) -> None:
    total = found.total()
    if total and sum(found[script] for script in wanted) >= SHARE * total:
        return
    shares = ", ".join(f"{script} {n / total:.0%}" for script, n in found.most_common(3))
    raise DataError(
        f"the texts are not in the language declared, {language!r}",
        wanted=f"letters of {', '.join(sorted(wanted))}, at least {SHARE:.0%} of all",
        got=shares or "no letters",
        do="declare the language that the texts are in, or give other texts",
    )


class Joined:
    """Several texts' worth of texts, one after the other, as often as they can be read."""

    def __init__(self, parts: Iterable[Iterable[str]]):
        self.parts = list(parts)

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.parts)


class Mixture:
    """Texts of several languages, interleaved so that their bytes stand in the ratio of `weights`.

    At each step the language speaks that has said least for its weight (the first named among
    equals), so any beginning of the mixture is mixed, and every reading gives the same order. It ends
    where the language whose turn it is has nothing left: nothing is repeated, the ratio holds.
    """

    def __init__(self, texts: Mapping[str, Iterable[str]], weights: Mapping[str, float]):
        if set(texts) != set(weights) or not all(weight > 0 for weight in weights.values()):
            raise DataError(
                "the weights of a mixture do not fit its texts",
                wanted=f"a weight above 0 for each of {', '.join(sorted(texts))}",
                got=dict(weights),
            )
        self.texts, self.weights = texts, dict(weights)

    def __iter__(self) -> Iterator[str]:
        readers = {name: iter(texts) for name, texts in self.texts.items()}
        said = dict.fromkeys(readers, 0.0)
        while True:
            name = min(said, key=said.get)
            text = next(readers[name], None)
            if text is None:
                return
            said[name] += len(text.encode()) / self.weights[name]
            yield text


def equal_lengths(
    texts: Mapping[str, Iterable[str]], characters: int = 1_000_000
) -> dict[str, list[str]]:
    """The first `characters` of each language, or as many as the shortest language has."""
    heads = {name: list(head(each, characters)) for name, each in texts.items()}
    shortest = min(sum(map(len, each)) for each in heads.values())
    return {name: list(head(each, shortest)) for name, each in heads.items()}


def head(texts: Iterable[str], characters: int) -> Iterator[str]:
    """The first `characters` of texts, the last one cut."""
    for text in texts:
        if characters <= 0:
            return
        yield text[:characters]
        characters -= len(text)


def lines(texts: Iterable[str], longest: int = LONGEST_LINE) -> Iterator[str]:
    """The lines of texts, line ends kept; a longer one in pieces that join to it.

    A piece ends where our split pattern cuts anyway, after a word or a number, if there is such a
    place within NEAR; else between two letters, never before a mark.
    """
    for text in texts:
        for line in text.splitlines(keepends=True):
            start = 0
            while len(line) - start > longest:
                stop = _border(line, start + longest, max(start + 1, start + longest - NEAR))
                yield line[start:stop]
                start = stop
            yield line[start:]


def _border(line: str, last: int, first: int) -> int:
    """The last place from `first` to `last` that a pre-token ends at, or else one that may be cut."""
    places = range(last, first - 1, -1)
    for at in places:
        before, after = line[at - 1], line[at]
        if before.isnumeric() or (is_letter(before) and not is_letter(after)):
            return at
    return next((at for at in places if category(line[at])[0] != "M"), last)
