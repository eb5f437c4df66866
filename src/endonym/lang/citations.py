"""Numbers of sections of law in one spelling, and those that a text cites.

มาตรา ๖๙ทวิ -> 69 ทวิ     มาตรา 12 / 1 -> 12/1     제12조의2 -> 12의2     Section 7 -> 7
"""

import re
import unicodedata

from endonym.lang.normalize import compose

BIS = (
    *(
        "ทวิ",
        "ตรี",
        "จัตวา",
        "เบญจ",
        "ฉ",
        "สัตต",
        "สัต",
        "อัฏฐ",
        "อัฐ",
        "นว",
        "ทศ",
        "เอกาทศ",
        "ทวาทศ",
        "เตรส",
    ),
    *("จตุทศ", "ปัณรส", "โสฬส", "สัตตรส", "อัฏฐารส", "เอกูนวีสติ", "วีสติ", "เอกวีสติ", "ทวาวีสติ", "เตวีสติ"),
    *("จตุวีสติ", "ปัญจวีสติ", "ฉัพพีสติ"),
)
"""Pali ordinals after the number of a Thai section that was put in later: bis, ter, quater ..."""

_BIS = "|".join(sorted(BIS, key=len, reverse=True))
NUMBER = rf"\d+(?:\s*/\s*\d+)?(?:\s*(?:{_BIS})(?:\s*/\s*\d+)?(?![\u0e00-\u0e7f]))?"
"""A Thai or Western section number, in the digits 0-9."""
WORD = r"(?i:มาตรา|ม\.|ข้อ|(?<![a-z])(?:sections?|sec\.|articles?|art\.)|§)"
_PREFIX = re.compile(rf"(?:{WORD}|제)\s*")
_KOREAN = r"(\d+)\s?조(?:\s?의\s?(\d+))?"
_CITED = re.compile(rf"{WORD}\s*({NUMBER})|제\s?{_KOREAN}")


def section_number(text: str) -> str:
    """A section's number without the word for "section", in the digits 0-9. What is no such number comes
    back with its spaces made single."""
    text = " ".join(western(compose(text)).split())
    bare = _PREFIX.sub("", text, count=1) if _PREFIX.match(text) else text
    korean = re.fullmatch(r"(\d+)\s?조?(?:\s?의\s?(\d+))?", bare)
    if korean:
        return _korean(korean[1], korean[2])
    return spelt(bare) if re.fullmatch(NUMBER, bare) else bare


def cited(text: str) -> list[str]:
    """The numbers of the sections that a text names with the word for it, in order, each once. Not those
    of an enumeration after the first (มาตรา 40 และ 41 names 40)."""
    found = {}
    for match in _CITED.finditer(western(compose(text))):
        number = spelt(match[1]) if match[1] else _korean(match[2], match[3])
        found[number] = None
    return list(found)


def western(text: str) -> str:
    """The text with the decimal digits of every script as 0-9, as many characters as before."""
    return "".join(
        str(unicodedata.decimal(sign)) if sign.isdecimal() and not sign.isascii() else sign
        for sign in text
    )


def spelt(number: str) -> str:
    """A NUMBER with no space at its slashes and one before its ordinal."""
    number = re.sub(r"\s*/\s*", "/", number.strip())
    return re.sub(rf"(\d)\s*({_BIS})", r"\1 \2", number)


def _korean(number: str, after: str | None) -> str:
    return number + (f"의{after}" if after else "")
