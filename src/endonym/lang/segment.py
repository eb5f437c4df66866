"""A text cut into words, sentences, syllables and graphemes, in the way its language is counted.

Each language's pack names its engines (pack.count); engines() says which versions they are.

words: "newmm", Thai dictionary words (nlpo3 with pythainlp's dictionary); "space", what stands
between spaces (Korean: eojeol); "kiwi", Korean morphemes in dictionary form. White space and pieces
without a letter or digit are dropped (the usual port of IFEval to Thai counts spaces as words). A
language written without spaces and without an engine here ("none") is an error, not a guess.

sentences: lines, and within a line "marks", units ended by . ! ? or their full-width, Devanagari
and Khmer relatives followed by a space or the end. Thai has no full stop: by marks a Thai line is
one sentence unless it carries such a mark, so prompts that count in Thai ask for lines. "crfcut"
(pythainlp) finds the Thai sentences inside a line, "kiwi" the Korean ones without marks.

syllables: "thai", those of han_solo (pythainlp); "hangul", one a Hangul block. Only what is written
in the language's own script is counted: nobody here says how many syllables "iPhone" has.

graphemes: Unicode's extended grapheme clusters (UAX 29), what a reader takes for one character: a
Thai consonant with its vowel and tone marks, an emoji of several people. Sara am belongs to the
cluster before it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import regex

from endonym.core.config import nearest
from endonym.core.errors import DataError
from endonym.lang.extras import need, version
from endonym.lang.normalize import compose
from endonym.lang.pack import pack

# Not after an initial or a title: "U.S. Virgin Islands" and "St. Lucia" stay whole.
TERMINATOR = re.compile(
    r"(?<=[.!?…])(?<!\b[A-Z]\.)(?<!\b(?:St|Mr|Ms|Dr)\.)(?<!\bMrs\.)[\"'”’)\]]*\s+"
    r"|(?<=[。！？។៕])[\"'”’)\]]*\s*"
)


PIECE = re.compile(r"[\u0e00-\u0e7f]+|\s+|[^\s\u0e00-\u0e7f]+")
THAI = re.compile("[\u0e00-\u0e7f]+")
HANGUL = re.compile("[\uac00-\ud7a3]")
GRAPHEME = regex.compile(r"\X")
WORDS = ["newmm", "space", "kiwi"]


def segmenter(language: str) -> Callable[[str], list[str]] | None:
    """Line -> words that join to the line again, white space included; None where spaces part words.

    For learning a vocabulary: no merge is to cross a word. A language written without spaces and
    without a segmenter here gives None too: its vocabulary is learnt without words.
    """
    return _thai_words if pack(language).count.words == "newmm" else None


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
    found = _newmm()(piece, safe_mode=True)
    if (
        "".join(found) != piece
    ):  # nlpo3 1.4: one in a thousand runs above 140 letters comes out changed
        found = _newmm()(piece, safe_mode=False)
    return tuple(found)


@lru_cache(maxsize=1)
def _newmm():
    need("nlpo3", "th", "Thai words")
    return need("pythainlp.tokenize.nlpo3", "th", "Thai words").segment


@lru_cache(maxsize=1)
def _kiwi():
    """Kiwi on one thread: its model takes seconds to load and half a gigabyte."""
    return need("kiwipiepy", "ko", "Korean morphemes and sentences").Kiwi(num_workers=1)


def words(text: str, language: str, engine: str = "") -> list[str]:
    """The words of a text, in order, by the engine that the pack names, or by the one given."""
    text = compose(text)
    kind = engine or pack(language).count.words
    if kind == "newmm":
        pieces = _thai_words(text)
    elif kind == "space":
        pieces = text.split()
    elif kind == "kiwi":
        windows = [window for line in lines(text) for window in _WINDOW.findall(line)]
        pieces = [token.form for window in windows for token in _kiwi().tokenize(window)]
    elif kind != "none":
        raise DataError(f"there is no engine {kind!r} for words", do=nearest(kind, WORDS))
    else:
        raise DataError(
            f"no word segmenter for {language!r}",
            wanted="a language written with spaces, or Thai",
            do="count graphemes, lines or sentences instead; or cut the words with a segmenter of "
            "the language and put spaces between them; or add an engine to lang/segment.py",
        )
    return [piece for piece in pieces if any(character.isalnum() for character in piece)]


def lines(text: str) -> list[str]:
    """The lines of a text that hold anything."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def sentences(text: str, language: str = "", engine: str = "") -> list[str]:
    """The sentences of a text, in order: by the engine that the language's pack names, or by the one
    given; by marks, which any language has, where neither is."""
    kind = engine or (pack(language).count.sentences if language else "marks")
    if kind not in SENTENCES:
        raise DataError(
            f"there is no engine {kind!r} for sentences", do=nearest(kind, list(SENTENCES))
        )
    cut = SENTENCES[kind]
    found = [unit.strip() for line in lines(compose(text)) for unit in cut(line)]
    return [unit for unit in found if any(character.isalnum() for character in unit)]


# The models hold features of every word of a line at once. A longer line is cut after a space, where
# a sentence ends or a word; without one, at the length itself.
LONGEST = 20_000
_WINDOW = re.compile(rf".{{1,{LONGEST}}}(?:\s+|$)|.{{{LONGEST}}}", re.DOTALL)


def _crfcut(line: str) -> list[str]:
    need("pycrfsuite", "th", "Thai sentences")
    segment = need("pythainlp.tokenize.crfcut", "th", "Thai sentences").segment
    return [sentence for window in _WINDOW.findall(line) for sentence in segment(window)]


def _kiwi_sentences(line: str) -> list[str]:
    windows = _WINDOW.findall(line)
    return [each.text for window in windows for each in _kiwi().split_into_sents(window)]


SENTENCES: dict[str, Callable[[str], list[str]]] = {
    "marks": TERMINATOR.split,
    "crfcut": _crfcut,
    "kiwi": _kiwi_sentences,
}


def syllables(text: str, language: str) -> list[str]:
    """The syllables of a text that are written in the language's own script, in order."""
    text = compose(text)
    kind = pack(language).count.syllables
    if kind == "hangul":
        return HANGUL.findall(text)
    if kind == "thai":
        return [each for run in THAI.findall(text) for word in _cut(run) for each in _spell(word)]
    raise DataError(
        f"no syllable counter for {language!r}",
        wanted="a pack whose count.syllables is thai or hangul",
        do="count words or graphemes instead",
    )


@lru_cache(maxsize=1 << 17)
def _spell(word: str) -> tuple[str, ...]:
    """A Thai word as syllables, remembered. Pieces without a letter (๒๕๖๗, ๆ, ฯ) are none."""
    need("pycrfsuite", "th", "Thai syllables")
    pieces = need("pythainlp.tokenize.han_solo", "th", "Thai syllables").segment(word)
    return tuple(piece for piece in pieces if any("ก" <= sign <= "ฮ" for sign in piece))


def graphemes(text: str) -> list[str]:
    """The extended grapheme clusters of a text (UAX 29, \\X of regex); they join to it again."""
    return GRAPHEME.findall(text)


@dataclass(frozen=True, slots=True)
class Counts:
    """How long a text is, in each of the language's units. None: no engine for it here."""

    words: int | None
    sentences: int
    syllables: int | None
    graphemes: int
    """White space included, as in characters."""
    characters: int
    """Unicode code points of the text as it is given."""


def counts(text: str, language: str) -> Counts:
    """The counts of a text by the engines of its language's pack."""
    count = pack(language).count
    return Counts(
        words=None if count.words == "none" else len(words(text, language)),
        sentences=len(sentences(text, language)),
        syllables=None if count.syllables == "none" else len(syllables(text, language)),
        graphemes=sum(1 for _ in GRAPHEME.finditer(text)),
        characters=len(text),
    )


def engines(language: str) -> dict[str, str]:
    """What counts each unit of a language, with its version; or that nothing does, or is missing.

    {"words": "newmm (nlpo3 1.4.0, dictionary of pythainlp 5.4.0)", ...}
    """
    count = pack(language).count
    return {
        "words": ENGINES[count.words](),
        "sentences": ENGINES[count.sentences](),
        "syllables": ENGINES[count.syllables](),
        "graphemes": f"extended grapheme clusters ({version('regex')})",
    }


def _kiwi_name() -> str:
    return f"kiwi ({version('kiwipiepy', 'ko')}, {version('kiwipiepy_model', 'ko')})"


ENGINES: dict[str, Callable[[], str]] = {
    "newmm": lambda: (
        f"newmm ({version('nlpo3', 'th')}, dictionary of {version('pythainlp', 'th')})"
    ),
    "crfcut": lambda: f"crfcut ({version('pythainlp', 'th')})",
    "thai": lambda: f"han_solo ({version('pythainlp', 'th')}, {version('python-crfsuite', 'th')})",
    "kiwi": _kiwi_name,
    "space": lambda: "spaces",
    "marks": lambda: "lines and end marks (lang/segment.py)",
    "hangul": lambda: "Hangul blocks, U+AC00 to U+D7A3",
    "none": lambda: "none",
}
