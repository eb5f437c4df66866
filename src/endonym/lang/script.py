"""In which scripts a text is written, and whether that fits a language.

The rule is the published one for Thai-only answering (chinda-eval's code-switching task, after
Typhoon; shared METHODS section 12), said for any pack:

    1. the text up to and including the last "</think>" is not looked at;
    2. no letter outside the language's own scripts and Latin;
    3. Latin letters not more than letters of the own scripts (unless Latin is an own script);
    4. ours: at least one letter of the own scripts. The published rule passes an empty reply and a
       reply of digits only.

Letters are characters of category L, and combining marks of a script (Thai vowel and tone signs),
so "more Thai than Latin" counts what the reader sees written in each. Letters that Unicode gives
no script (U+00B5, mathematical alphabets) count for nothing; Greek is a script of its own.
A script is not a language: Vietnamese passes for English. What tells Latin languages apart is in
lang/identify.py.

Three measures of code-switching, from coarse to fine: in_language() by the rule above, yes or no;
foreign_share() of the letters; switches(), where the writing passes from one script to another.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import category

from endonym.lang.normalize import compose

# ISO 15924 code: ranges of code points (Unicode 16 blocks; a block's few unassigned points are
# harmless, they are no letters).
RANGES: dict[str, list[tuple[int, int]]] = {
    "Latn": [
        (0x41, 0x5A),
        (0x61, 0x7A),
        (0xAA, 0xAA),
        (0xBA, 0xBA),
        (0xC0, 0x2B8),
        (0x1D00, 0x1D25),
        (0x1D2C, 0x1D5C),
        (0x1D62, 0x1D65),
        (0x1D6B, 0x1D77),
        (0x1D79, 0x1DBE),
        (0x1E00, 0x1EFF),
        (0x2071, 0x2071),
        (0x207F, 0x207F),
        (0x2090, 0x209C),
        (0x212A, 0x212B),
        (0x2C60, 0x2C7F),
        (0xA722, 0xA7FF),
        (0xAB30, 0xAB64),
        (0xFB00, 0xFB06),
        (0xFF21, 0xFF3A),
        (0xFF41, 0xFF5A),
    ],
    "Grek": [(0x370, 0x3FF), (0x1F00, 0x1FFF)],
    "Cyrl": [(0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)],
    "Armn": [(0x530, 0x58F), (0xFB13, 0xFB17)],
    "Hebr": [(0x590, 0x5FF), (0xFB1D, 0xFB4F)],
    "Arab": [
        (0x600, 0x6FF),
        (0x750, 0x77F),
        (0x870, 0x8FF),
        (0xFB50, 0xFDFF),
        (0xFE70, 0xFEFC),
    ],
    "Syrc": [(0x700, 0x74F), (0x860, 0x86F)],
    "Thaa": [(0x780, 0x7BF)],
    "Nkoo": [(0x7C0, 0x7FF)],
    "Deva": [(0x900, 0x963), (0x966, 0x97F), (0xA8E0, 0xA8FF)],
    "Beng": [(0x980, 0x9FF)],
    "Guru": [(0xA00, 0xA7F)],
    "Gujr": [(0xA80, 0xAFF)],
    "Orya": [(0xB00, 0xB7F)],
    "Taml": [(0xB80, 0xBFF)],
    "Telu": [(0xC00, 0xC7F)],
    "Knda": [(0xC80, 0xCFF)],
    "Mlym": [(0xD00, 0xD7F)],
    "Sinh": [(0xD80, 0xDFF)],
    "Thai": [(0xE00, 0xE7F)],
    "Laoo": [(0xE80, 0xEFF)],
    "Tibt": [(0xF00, 0xFFF)],
    "Mymr": [(0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)],
    "Geor": [(0x10A0, 0x10FF), (0x1C90, 0x1CBF), (0x2D00, 0x2D2F)],
    "Hang": [
        (0x1100, 0x11FF),
        (0x3131, 0x318E),
        (0xA960, 0xA97F),
        (0xAC00, 0xD7FF),
        (0xFFA0, 0xFFDC),
    ],
    "Ethi": [(0x1200, 0x139F), (0x2D80, 0x2DDF), (0xAB01, 0xAB2F)],
    "Cher": [(0x13A0, 0x13FF), (0xAB70, 0xABBF)],
    "Cans": [(0x1400, 0x167F), (0x18B0, 0x18FF)],
    "Khmr": [(0x1780, 0x17FF)],
    "Mong": [(0x1800, 0x18AF)],
    "Talu": [(0x1980, 0x19DF)],
    "Bali": [(0x1B00, 0x1B7F)],
    "Sund": [(0x1B80, 0x1BBF)],
    "Tfng": [(0x2D30, 0x2D7F)],
    "Hira": [(0x3041, 0x309F), (0x1B001, 0x1B11F)],
    "Kana": [(0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)],
    "Bopo": [(0x3105, 0x312F), (0x31A0, 0x31BF)],
    "Hani": [
        (0x2E80, 0x2FDF),
        (0x3005, 0x3007),
        (0x3400, 0x4DBF),
        (0x4E00, 0x9FFF),
        (0xF900, 0xFAFF),
        (0x20000, 0x323AF),
    ],
    "Yiii": [(0xA000, 0xA4CF)],
    "Java": [(0xA980, 0xA9DF)],
}

# Several scripts under one ISO 15924 code, as CLDR's likely subtags name them.
COMPOUNDS = {
    "Jpan": ("Hira", "Kana", "Hani"),
    "Kore": ("Hang", "Hani"),
    "Hans": ("Hani",),
    "Hant": ("Hani",),
}

# Letters that belong to no script: micro sign, letter-like symbols, mathematical alphabets.
COMMON = [(0xB5, 0xB5), (0x2100, 0x214F), (0x1D400, 0x1D7FF)]
UNKNOWN = "Zzzz"  # a letter of a script that the table lacks: foreign to every language

_TABLE = sorted((low, high, code) for code, ranges in RANGES.items() for low, high in ranges)
_LOWS = [low for low, _, _ in _TABLE]


@lru_cache(maxsize=1 << 16)
def script_of(character: str) -> str | None:
    """The script of a letter or mark; None of anything else and of letters without a script."""
    kind = category(character)[0]
    if kind not in "LM":
        return None
    point = ord(character)
    at = bisect_right(_LOWS, point) - 1
    if at >= 0 and point <= _TABLE[at][1]:
        return _TABLE[at][2]
    if kind == "M" or any(low <= point <= high for low, high in COMMON):
        return None
    return UNKNOWN


def counts(text: str) -> dict[str, int]:
    """Letters a script, most frequent first."""
    found: dict[str, int] = {}
    for character in compose(text):
        code = script_of(character)
        if code:
            found[code] = found.get(code, 0) + 1
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def shares(text: str) -> dict[str, float]:
    """Share of each script among the letters of a text; empty where there are no letters."""
    found = counts(text)
    total = sum(found.values())
    return {code: number / total for code, number in found.items()}


def after_thinking(text: str) -> str:
    """What follows the last "</think>"; the whole text where there is none."""
    return text.rpartition("</think>")[2]


def why_not(text: str, scripts: Iterable[str]) -> str:
    """ "" if the text is written in these scripts by the rule above, else the reason it is not.

    Reasons: "no letter of the language", "foreign letters: <scripts>", "more Latin than own
    letters".
    """
    own_scripts = set(scripts)
    found = counts(after_thinking(text))
    own = sum(number for code, number in found.items() if code in own_scripts)
    foreign = [code for code in found if code not in own_scripts and code != "Latn"]
    if foreign:
        return f"foreign letters: {', '.join(sorted(foreign))}"
    if not own:
        return "no letter of the language"
    if "Latn" not in own_scripts and found.get("Latn", 0) > own:
        return "more Latin than own letters"
    return ""


def script_ranges(language: str) -> list[tuple[int, int]] | None:
    """The code points of a language's own scripts; None for Latin, which no base model lacks."""
    from endonym.lang.pack import pack

    scripts = pack(language).scripts
    return None if "Latn" in scripts else [pair for code in scripts for pair in RANGES[code]]


def in_language(text: str, language: str) -> bool:
    """Whether a reply keeps to a language's scripts, by the rule at the head of this file."""
    from endonym.lang.pack import pack

    return not why_not(text, pack(language).scripts)


def foreign_share(text: str, language: str, *, latin: bool = False) -> float:
    """Share of a text's letters that are neither of the language's own scripts nor Latin, 0 to 1.

    latin: Latin letters are foreign too (where Latin is no own script). Names, units and code are
    written in Latin everywhere, so both figures are needed to tell a reply with "iPhone" in it from
    one that has turned English. Letters are those of counts(): without a script they count on
    neither side. The text before "</think>" is not looked at. 0.0 for a text without letters.
    """
    from endonym.lang.pack import pack

    found = counts(after_thinking(text))
    kept = set(pack(language).scripts) | (set() if latin else {"Latn"})
    foreign = sum(number for code, number in found.items() if code not in kept)
    return foreign / sum(found.values()) if found else 0.0


@dataclass(frozen=True, slots=True)
class Switches:
    """Where a text passes from one script to another."""

    count: int
    """Switch points: places where a letter's script is not that of the letter before it."""
    words: int | None
    """Words as lang/segment.py counts them; None where the language has no words there."""

    @property
    def rate(self) -> float | None:
        """Switch points a word; 0.0 for a text without words, None where words are not counted."""
        if self.words is None:
            return None
        return self.count / self.words if self.words else 0.0


def switches(text: str, language: str) -> Switches:
    """The switch points between scripts in a text, what stands before "</think>" left out.

    The language's own scripts are one (kanji and kana; Hangul alone where Hanja is foreign).
    Spaces, digits and signs are passed over: "ใช้ Python 3 ได้" has two switch points. Whether
    a switch falls between two words or inside one ("Python을") depends on the cutting of words and
    is not asked, so that figures of languages with and without spaces compare.
    """
    from endonym.lang.pack import pack
    from endonym.lang.segment import words

    text = after_thinking(text)
    own = set(pack(language).scripts)
    found, last = 0, None
    for character in compose(text):
        script = script_of(character)
        if script is None:
            continue
        script = "own" if script in own else script
        found += last is not None and script != last
        last = script
    is_counted = pack(language).count.words != "none"
    return Switches(found, len(words(text, language)) if is_counted else None)
