"""One spelling of a text: NFC and the rules of its language. Nothing that can be seen is changed.

A rule undoes what looks the same on the screen (or is not seen at all) but is encoded otherwise:
Thai sara am typed as two signs, a tone mark typed before its vowel, a syllable spelt in jamo, an
invisible break hint, a full-width letter. What a reader sees stays as it was written: drawn-out
vowels, laughing jamo, spelling mistakes, spaces and lines.

Never NFKC: it splits Thai sara am (U+0E33) into two code points, so that a text stops being equal
to itself, and it folds signs that carry meaning (superscripts, circled digits, ligatures).

    normalize(text, "th")       NFC and the rules that the pack of Thai names
    RULES["thai_order"](text)   one rule

Every rule is idempotent on NFC, and so is any set of them: normalize() goes on until nothing
changes.
"""

import re
import unicodedata
from collections.abc import Callable

from endonym.core.config import nearest
from endonym.core.errors import DataError

SARA_AM = re.compile("\u0e4d([\u0e48-\u0e4b]?)\u0e32")
INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200e\u200f\u2060\ufeff"))
SPACES = dict.fromkeys(map(ord, "\u00a0\u2007\u202f\u3000"), " ")


def compose(text: str) -> str:
    """NFC, and nikhahit + (tone mark) + sara aa typed apart becomes (tone mark) + sara am.

    Both look the same on the screen; NFC leaves the two-part form alone (Unicode gives U+0E33 a
    compatibility decomposition only), and 588 rows of one published Thai set carry it.
    """
    text = unicodedata.normalize("NFC", text)
    return SARA_AM.sub("\\1\u0e33", text) if "\u0e4d" in text else text


def clean(text: str) -> str:
    """compose(), without invisible characters, with ordinary single spaces, stripped."""
    return " ".join(compose(text).translate(INVISIBLE).translate(SPACES).split())


def latin_digits(text: str) -> str:
    """Decimal digits of every script as 0-9: Thai, Lao, Khmer, Devanagari, Arabic, full-width."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(c, c)) if not c.isascii() else c for c in text)


def normalize(text: str, language: str) -> str:
    """A text in NFC, by the rules that the language's pack names (pack.normalize), in RULES' order."""
    from endonym.lang.pack import pack

    return apply(text, pack(language).normalize)


def apply(text: str, names: list[str]) -> str:
    """A text in NFC, by the named rules, in RULES' order. An unknown name is a DataError."""
    for name in names:
        if name not in RULES:
            raise DataError(
                f"there is no rule of normalisation {name!r}", do=nearest(name, list(RULES))
            )
    text = unicodedata.normalize("NFC", text)
    if text.isascii():
        return text
    rules = [rule for name, rule in RULES.items() if name in names]
    before = ""
    # What one rule removes or NFC reorders can bring others together (marks of several scripts on
    # one letter): so until a pass changes nothing. It ends, as a pass that changes a text makes it
    # shorter, plainer or better ordered.
    while text != before:
        before = text
        for rule in rules:
            text = rule(text)
        text = unicodedata.normalize("NFC", text)
    return text


# Halfwidth and Fullwidth Forms: what Unicode itself calls a <wide> or <narrow> form of another
# character. Half-width jamo become the ordinary letters (U+3131 ...), as on the keyboard.
WIDTHS = {
    chr(point): chr(int(parts[1], 16))
    for point in range(0xFF01, 0xFFEF)
    if (parts := unicodedata.decomposition(chr(point)).split())
    and parts[0] in ("<wide>", "<narrow>")
}
_WIDTH = re.compile("[\uff01-\uffee]")


def width(text: str) -> str:
    """Full-width Latin, digits and signs, half-width kana and jamo, as their ordinary forms.

    Not for a language whose punctuation is full-width (Chinese, Japanese).
    """
    return _WIDTH.sub(lambda found: WIDTHS.get(found[0], found[0]), text)


# Every blank of Unicode that is not the ordinary one, but for ogham's, which is drawn; the Hangul
# filler, a letter that is blank. Line and paragraph separators end a line.
_BLANK = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000\u3164]")
_LINE_END = re.compile("[\u2028\u2029\u0085]")


def spaces(text: str) -> str:
    """No-break, fixed-width and ideographic spaces as U+0020; Unicode's line ends as "\\n".

    As many as there were: indentation and columns stay.
    """
    return _LINE_END.sub("\n", _BLANK.sub(" ", text))


_HINT = re.compile("[\u00ad\u200b\u2060\ufeff]")
# Joiners and direction marks say nothing beside a letter that neither joins nor turns. Beside
# emoji, Arabic, Hebrew, Indic, Khmer, Burmese and Mongolian letters they do and stay.
_PLAIN = "\\u0000-\\u024f\\u0e00-\\u0eff\\u1100-\\u11ff\\u3130-\\u318f\\uac00-\\ud7a3"
_JOINER = re.compile(f"(?<=[{_PLAIN}])[\u200c-\u200f]+|[\u200c-\u200f]+(?=[{_PLAIN}])")


def zero_width(text: str) -> str:
    """Without soft hyphens, break hints and byte order marks, nor joiners and direction marks where
    they do nothing.

    In Khmer, Burmese and some Lao text U+200B parts the words: a pack that wants to keep that names
    another rule.
    """
    return _JOINER.sub("", _HINT.sub("", text))


def _letter(jamo: str) -> str:
    """The letter of a modern conjoining jamo: U+1100 and U+11A8 are both U+3131."""
    return unicodedata.lookup(f"HANGUL LETTER {unicodedata.name(jamo).split(maxsplit=2)[2]}")


_LETTERS = {
    chr(point): _letter(chr(point))
    for first, last in ((0x1100, 0x1112), (0x1161, 0x1175), (0x11A8, 0x11C2))
    for point in range(first, last + 1)
}
_JAMO = "\\u1100-\\u11ff\\ua960-\\ua97f\\ud7b0-\\ud7ff"
# Leads alone, or vowels or finals alone that hang on no syllable. In a mixed run they belong to a
# syllable of old Hangul.
_LOOSE = re.compile(
    f"(?<![{_JAMO}])[\u1100-\u1112]+(?![{_JAMO}])"
    f"|(?<![{_JAMO}\uac00-\ud7a3])(?:[\u1161-\u1175]+|[\u11a8-\u11c2]+)(?![{_JAMO}])"
)


def jamo(text: str) -> str:
    """Conjoining jamo as syllables (NFC), and those left over as the letters a keyboard types.

    So U+1112 U+1161 U+11AB is 한, and ᄏᄏᄏ (U+110F) is ㅋㅋㅋ (U+314B). Old Hangul, whose syllables
    have no code point of their own, stays in conjoining jamo. Letters (U+3131-U+318E) are never
    joined into syllables: a reader sees ㄱㅏ as two.
    """
    text = unicodedata.normalize("NFC", text)
    return _LOOSE.sub(lambda run: "".join(map(_LETTERS.__getitem__, run[0])), text)


# Thai and Lao lie 0x80 apart and are ordered alike: consonant, phinthu (Lao semivowel), vowel
# above, vowel below, maitaikhu and nikhahit, tone, silencer; then what follows on the line. Within
# that, Unicode's combining classes (9, 103 or 118, 107 or 122) rise, so NFC changes nothing in it.


class _Order:
    """The order of the signs of one consonant in Thai (offset 0) or Lao (offset 0x80)."""

    def __init__(self, offset: int, first: str, above: str, below: str):
        def signs(points: str) -> str:
            return "".join(chr(ord(point) + offset) for point in points)

        self.tones = signs("\u0e48\u0e49\u0e4a\u0e4b")
        kinds = [first, above, below, signs("\u0e47\u0e4d"), self.tones]
        kinds.append(signs("\u0e4c\u0e4e"))
        self.rank = {sign: rank for rank, kind in enumerate(kinds) for sign in kind}
        self.following = signs("\u0e30\u0e32\u0e33\u0e45")
        self.runs = re.compile(f"[{''.join(self.rank)}{self.following}]{{2,}}")
        e, self.ae = signs("\u0e40"), signs("\u0e41")
        self.twice_e = re.compile(f"(?<!{e}){e}{e}(?=[{signs('ก')}-{signs('ฮ')}])")
        nikhahit, aa, self.am = signs("\u0e4d"), signs("\u0e32"), signs("\u0e33")
        self.am_apart = re.compile(f"{nikhahit}([{self.tones}]*){aa}")

    def order(self, text: str) -> str:
        return self.twice_e.sub(self.ae, self.runs.sub(self._run, text))

    def _run(self, run: re.Match[str]) -> str:
        at = next((i for i, sign in enumerate(run[0]) if sign in self.following), len(run[0]))
        over, after = run[0][:at], run[0][at:]
        over += "".join(sign for sign in after if sign in self.tones)
        after = "".join(sign for sign in after if sign not in self.tones)
        return "".join(sorted(dict.fromkeys(over), key=self.rank.__getitem__)) + after

    def compose_am(self, text: str) -> str:
        return self.am_apart.sub(f"\\1{self.am}", text)


_THAI = _Order(0, first="\u0e3a", above="\u0e31\u0e34\u0e35\u0e36\u0e37", below="\u0e38\u0e39")
_LAO = _Order(
    0x80,
    first="\u0eba\u0ebc",
    above="\u0eb1\u0eb4\u0eb5\u0eb6\u0eb7\u0ebb",
    below="\u0eb8\u0eb9",
)


def thai_order(text: str) -> str:
    """The signs of a Thai consonant once each, in the order of the standard (TIS 620, WTT 2.0).

    Vowel before tone, tone before sara a, aa and am; a sign typed twice over one consonant is drawn
    once; sara e typed twice before a consonant is sara ae. Two different tones or vowels on one
    consonant stay: nobody can say which was meant.
    """
    return _THAI.order(text)


def sara_am(text: str) -> str:
    """Nikhahit, tone marks and sara aa typed apart as (tone marks and) sara am."""
    return _THAI.compose_am(text)


def lao_order(text: str) -> str:
    """thai_order() for Lao."""
    return _LAO.order(text)


def lao_am(text: str) -> str:
    """sara_am() for Lao: niggahita, tone marks and vowel aa as (tone marks and) U+0EB3."""
    return _LAO.compose_am(text)


# In the order in which they are applied: what changes single characters, then what is removed
# between characters, then what depends on neighbours.
RULES: dict[str, Callable[[str], str]] = {
    "width": width,
    "digits": latin_digits,
    "spaces": spaces,
    "zero_width": zero_width,
    "jamo": jamo,
    "thai_order": thai_order,
    "sara_am": sara_am,
    "lao_order": lao_order,
    "lao_am": lao_am,
}
