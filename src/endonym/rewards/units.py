"""The unit or currency behind a number, by the words and signs of its language and of English (CLDR).

    split_unit("25 กิโลเมตร", "th")      ("25", "kilometer")
    split_unit("3\\text{ km}", "en")     ("3", "kilometer")
    split_unit("1,250 บาท", "th")        ("1,250", "THB")

Nothing is converted. Signs of one or two Latin letters (m, h, kg) are units only behind a space or
inside \\text{}, as 5m may be five times m.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import product

from endonym.lang.pack import pack

UNITS = {
    "length": ("kilometer", "meter", "centimeter", "millimeter", "mile", "foot", "inch"),
    "mass": ("kilogram", "gram", "milligram", "metric-ton"),
    "volume": ("liter", "milliliter", "cubic-meter", "cubic-centimeter"),
    "area": ("square-kilometer", "square-meter", "square-centimeter", "hectare"),
    "duration": ("second", "minute", "hour", "day", "week", "month", "year"),
    "speed": ("kilometer-per-hour", "meter-per-second"),
    "angle": ("degree",),
    "temperature": ("celsius",),
}
CURRENCIES = ("USD", "EUR", "GBP", "JPY", "THB", "KRW")
# What people write and CLDR's display names do not say.
ALSO = {"원": "KRW", "won": "KRW", "baht": "THB", "dollar": "USD", "dollars": "USD", "元": "CNY"}
ALSO |= {"degrees": "degree", "^\\circ": "degree", "^{\\circ}": "degree", "°": "degree"}
ALSO |= {"baht": "THB", "ตารางเมตร": "square-meter", "ตร.ม.": "square-meter", "บาทถ้วน": "THB"}
WRAPPED = re.compile(r"\\(?:text|mathrm|mbox|textrm|operatorname)\s*\{([^{}]*)\}")
SQUARED = {"^2": "²", "^{2}": "²", "^3": "³", "^{3}": "³"}


def split_unit(text: str, language: str) -> tuple[str, str]:
    """(the text without its unit, the unit's name or ""). At most one unit at the end, or a currency
    sign at the beginning."""
    words, signs = _known(language)
    whole = WRAPPED.sub(r" \1", text).strip()
    for power, sign in SQUARED.items():
        if whole.endswith(power):
            whole = whole[: -len(power)] + sign
    folded = whole.casefold()
    for sign, name in signs:
        if folded.startswith(sign) and len(whole) > len(sign):
            return whole[len(sign) :].strip(), name
        if folded.startswith("\\" + sign):
            return whole[len(sign) + 1 :].strip(), name
    for word, name in words:
        before = whole[: -len(word)]
        if not folded.endswith(word) or not before.strip():
            continue
        is_short = word.isascii() and len(word) <= 2 and word.isalpha()
        is_free = before[-1] == " " or not (before[-1].isalpha() or is_short)
        if is_free and not re.search(r"[\^_\\]\s*$", before):
            return before.strip(), name
    return text, ""


@lru_cache(maxsize=64)
def _known(language: str) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """(words and signs after a number, signs before one), longest first: folded spelling, name."""
    from babel import Locale, UnknownLocaleError

    after, before = dict(ALSO), {}
    currencies = {*CURRENCIES, *([pack(language).currency] if language else [])} - {""}
    for code in dict.fromkeys(["en", language or "en"]):
        try:
            locale = Locale.parse(code)
        except (UnknownLocaleError, ValueError):  # a language that CLDR does not know
            continue
        for word, name in _units(locale):
            after.setdefault(word, name)
        for word, name, is_sign in _currencies(locale, sorted(currencies)):
            after.setdefault(word, name)
            if is_sign:
                before.setdefault(word, name)
    return _longest_first(after), _longest_first(before)


def _units(locale) -> Iterator[tuple[str, str]]:
    from babel.units import UnknownUnitError, format_unit

    for kind, names in UNITS.items():
        for name, length, amount in product(names, ("long", "short", "narrow"), (1, 5)):
            try:
                shown = format_unit(amount, f"{kind}-{name}", length, locale=locale)
            except UnknownUnitError:
                continue
            word = re.sub(r"[\d\s]+", "", shown, count=1).strip().casefold()
            if word:
                yield word, name


def _currencies(locale, codes: list[str]) -> Iterator[tuple[str, str, bool]]:
    from babel.numbers import get_currency_name, get_currency_symbol

    for code in codes:
        sign = get_currency_symbol(code, locale).casefold()
        yield sign, code, not sign[-1].isalnum()
        for amount in (None, 1, 5):
            yield get_currency_name(code, amount, locale).casefold(), code, False


def _longest_first(table: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(table.items(), key=lambda pair: -len(pair[0])))
