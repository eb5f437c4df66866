"""One spelling of a text: NFC, Thai sara am composed, stray spaces and break hints cleared.

Never NFKC: it splits Thai sara am (U+0E33) into two code points, so that a text stops being equal
to itself, and it folds symbols that carry meaning.
"""

import re
import unicodedata

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
