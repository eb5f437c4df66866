"""Facts that CLDR (Babel), pythainlp and num2words state about a language, as (key, value) pairs.

    fact = (skill, key, value)      numbers: ("48", "สี่สิบแปด")     countries: ("TH", "ไทย")

Two kinds of skill. A rule can be applied to a key never seen (numbers in words, money in words,
Buddhist years, dates, quantities); what is recalled must have been read (names and codes). A skill
that the libraries do not have for a language is left out and its reason kept in `missing`; no value
is ever made up. Values are NFC, without invisible break hints, with ordinary spaces.

Held-out facts. For rules, one hash of the number (or of the year) decides for every skill at once:
were 48 held out of `numbers` only, "฿48" would still spell it out in training. Building blocks are
always for training (0-20, whole tens, whole hundreds): "eleven" follows from nothing. For recall
the hash of (skill, key) decides which facts are asked about in training.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from hashlib import blake2b

from endonym.core.config import Config, nearest
from endonym.core.errors import DataError
from endonym.lang.cldr import locale_of
from endonym.lang.normalize import clean
from endonym.lang.pack import pack

TEST_SHARE = 0.2


class Ranges(Config):
    """Which rule facts there are; both ends belong to the range. Small enough for 1M parameters."""

    numbers: tuple[int, int] = (0, 999)
    money: tuple[int, int] = (1, 999)
    years: tuple[int, int] = (1950, 2099)
    """Common-era years. Not before 1941: until then the Thai year began in April."""
    units: tuple[int, int] = (2, 99)


DEFAULT_RANGES = Ranges()


@dataclass(frozen=True, slots=True)
class Fact:
    skill: str
    key: str
    value: str
    held_out: bool
    """rule: in no training text and no training question; recall: in no training question."""
    likeness: int = 0
    """Facts of a skill with near values are near neighbours: where wrong choices are taken from."""


RULES = ("numbers", "money", "years", "dates", "weekday_of", "units")
RECALL = (
    "countries",
    "languages",
    "currencies",
    "country_currency",
    "months",
    "weekdays",
    "provinces",
)
SKILLS = RULES + RECALL

# International symbol: CLDR unit.
UNITS = {
    "km": "length-kilometer",
    "m": "length-meter",
    "cm": "length-centimeter",
    "kg": "mass-kilogram",
    "g": "mass-gram",
    "L": "volume-liter",
    "h": "duration-hour",
    "min": "duration-minute",
    "s": "duration-second",
    "ha": "area-hectare",
}

# Codes that CLDR names but ISO 3166-1 has not assigned to a country or territory.
NOT_COUNTRIES = frozenset(
    ("AC", "CP", "CQ", "DG", "EA", "EU", "EZ", "IC", "QO", "TA", "UN", "XA", "XB", "XK", "ZZ")
)


def kind_of(skill: str) -> str:
    """ "rule" | "recall"."""
    return "rule" if skill in RULES else "recall"


def skills(language: str) -> list[str]:
    """The skills that the libraries have for a language, in the order of SKILLS."""
    return [skill for skill in SKILLS if skill not in missing(language)]


@lru_cache(maxsize=256)
def missing(language: str) -> dict[str, str]:
    """The skills that are left out for a language, each with its reason."""
    reasons = {}
    for skill in SKILLS:
        try:
            next(_SOURCES[skill](language, DEFAULT_RANGES), None) or _absent(
                f"no value in CLDR for {language}"
            )
        except _Absent as absent:
            reasons[skill] = str(absent)
    return reasons


@lru_cache(maxsize=512)
def facts(language: str, skill: str, ranges: Ranges = DEFAULT_RANGES) -> tuple[Fact, ...]:
    """Every fact of one skill, neighbours in value beside each other where there is an order.

    Raises DataError for a skill that does not exist or that the language lacks.
    """
    if skill not in SKILLS:
        raise DataError(f"there is no skill {skill!r}", do=nearest(skill, list(SKILLS)))
    reason = missing(language).get(skill)
    if reason:
        raise DataError(
            f"{language!r} has no skill {skill!r}",
            got=reason,
            do=f"choose among: {', '.join(skills(language))}",
        )
    if ranges.years[0] < 1941 and pack(language).calendar == "buddhist":
        raise DataError(
            "Thai years before 1941 began in April, so +543 is not exact",
            where="ranges.years",
            wanted="1941 or later",
            got=ranges.years[0],
        )
    found = []
    for key, value, decider in _SOURCES[skill](language, ranges):
        key, value = clean(key), clean(value)
        found.append(Fact(skill, key, value, _held_out(decider), len(found)))
    return tuple(found)


def stable_hash(text: str) -> int:
    """64 bits of BLAKE2b: the same on every machine and in every process."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def hashed_out(text: str, share: float = TEST_SHARE) -> bool:
    """Whether a text falls into the held-out share."""
    return stable_hash(text) / 2**64 < share


def _held_out(decider: int | str) -> bool:
    if isinstance(decider, str):
        return hashed_out(decider)
    is_block = decider <= 20 or decider % 100 == 0 or (decider < 100 and decider % 10 == 0)
    return not is_block and hashed_out(f"number {decider}")


class _Absent(Exception):
    """A skill that the libraries lack for a language; the message is the reason."""


def _absent(reason: str):
    raise _Absent(reason)


# Each source yields (key, value, decider): an int decides by number or year, a str by itself.
Triples = Iterator[tuple[str, str, int | str]]


def _numbers(language: str, ranges: Ranges) -> Triples:
    in_words = _speller(language)
    for n in range(ranges.numbers[0], ranges.numbers[1] + 1):
        yield str(n), in_words(n), n


def _money(language: str, ranges: Ranges) -> Triples:
    from babel.numbers import format_currency

    currency = pack(language).currency
    in_words = _teller(language, currency)
    for n in range(ranges.money[0], ranges.money[1] + 1):
        key = format_currency(
            n, currency, "¤#,##0", locale=locale_of(language), currency_digits=False
        )
        yield key, in_words(n), n


def _years(language: str, ranges: Ranges) -> Triples:
    if pack(language).calendar != "buddhist":
        raise _Absent("its calendar counts the common era: nothing to convert")
    for year in range(ranges.years[0], ranges.years[1] + 1):
        yield str(year), str(year + 543), year


def _days(language: str, ranges: Ranges) -> Iterator[date]:
    """One day of every month of every year: the day is a hash of the month, the same for all."""
    for year in range(ranges.years[0], ranges.years[1] + 1):
        for month in range(1, 13):
            yield date(year, month, 1 + stable_hash(f"day {year}-{month}") % 28)


def _dates(language: str, ranges: Ranges) -> Triples:
    write = _date_writer(language)
    for day in _days(language, ranges):
        yield day.isoformat(), write(day), day.year


def _weekday_of(language: str, ranges: Ranges) -> Triples:
    write = _date_writer(language)
    names = _calendar_names(language, "days")
    for day in _days(language, ranges):
        yield write(day), names[day.weekday()], day.year


def _units(language: str, ranges: Ranges) -> Triples:
    known = {symbol: unit for symbol, unit in UNITS.items() if _quantity(3, unit, language)}
    if not known:
        raise _Absent("CLDR has no unit patterns")
    for n in range(ranges.units[0], ranges.units[1] + 1):
        for symbol, unit in known.items():
            yield f"{n} {symbol}", _quantity(n, unit, language), n


def _countries(language: str, ranges: Ranges) -> Triples:
    names = locale_of(language).territories
    for code in sorted(names):
        if len(code) == 2 and code.isalpha() and code not in NOT_COUNTRIES:
            yield from _name("countries", code, names[code])


def _languages(language: str, ranges: Ranges) -> Triples:
    names = locale_of(language).languages
    for code in sorted(names):
        if len(code) == 2 and code != "sh":  # sh is withdrawn from ISO 639-1
            yield from _name("languages", code, names[code])


def _currencies(language: str, ranges: Ranges) -> Triples:
    names = locale_of(language).currencies
    for code in sorted({code for codes in _tender().values() for code in codes}):
        if code in names:
            yield from _name("currencies", code, names[code])


def _country_currency(language: str, ranges: Ranges) -> Triples:
    """Country name to currency name, where there is one legal tender."""
    locale = locale_of(language)
    for code, codes in _tender().items():
        country, currency = locale.territories.get(code), locale.currencies.get(codes[0])
        if len(codes) == 1 and country and currency and "(" not in country:
            for _, value, _ in _name("country_currency", codes[0], currency):
                yield country, value, f"country_currency {code}"


def _months(language: str, ranges: Ranges) -> Triples:
    names = _calendar_names(language, "months")
    for number in range(1, 13):
        yield str(number), names[number], f"months {number}"


def _weekdays(language: str, ranges: Ranges) -> Triples:
    """A day of the week to the day after it."""
    names = _calendar_names(language, "days")
    for number in range(7):
        yield names[number], names[(number + 1) % 7], f"weekdays {number}"


def _provinces(language: str, ranges: Ranges) -> Triples:
    """The official abbreviation of a province to its name. Bangkok is no province."""
    if language != "th":
        raise _Absent("no library here lists its provinces")
    from pythainlp.corpus import provinces

    for row in sorted(provinces(details=True), key=lambda row: row["name_th"]):
        if row["name_th"] == "กรุงเทพมหานคร":
            continue
        yield row["abbr_th"], row["name_th"], f"provinces {row['abbr_th']}"


_SOURCES: dict[str, Callable[[str, Ranges], Triples]] = {
    "numbers": _numbers,
    "money": _money,
    "years": _years,
    "dates": _dates,
    "weekday_of": _weekday_of,
    "units": _units,
    "countries": _countries,
    "languages": _languages,
    "currencies": _currencies,
    "country_currency": _country_currency,
    "months": _months,
    "weekdays": _weekdays,
    "provinces": _provinces,
}


def _name(skill: str, code: str, name: str | None) -> Triples:
    """A code's name, unless CLDR has none of its own or qualifies it: two spellings would be right."""
    if name and name != code and "(" not in name and "（" not in name:
        yield code, name, f"{skill} {code}"


@lru_cache(maxsize=1)
def _tender() -> dict[str, list[str]]:
    """Country code to the currencies that are legal tender there today."""
    from babel import Locale
    from babel.numbers import get_territory_currencies

    codes = [c for c in Locale("en").territories if len(c) == 2 and c.isalpha()]
    found = {c: get_territory_currencies(c) for c in sorted(codes) if c not in NOT_COUNTRIES}
    return {code: currencies for code, currencies in found.items() if currencies}


@lru_cache(maxsize=256)
def _calendar_names(language: str, what: str) -> dict[int, str]:
    """Names of the months (1-12) or days (0 = Monday) standing alone, not inside a date.

    Out of a private copy of CLDR's data: Babel 2.18 stores a resolved alias in the tables that all
    locales share, so that after Lao, whose stand-alone months it resolves first, German months are
    Lao too.
    """
    from copy import deepcopy

    from babel.localedata import LocaleDataDict, load

    data = LocaleDataDict(deepcopy(load(str(locale_of(language)))))
    return dict(data[what]["stand-alone"]["wide"])


def _speller(language: str) -> Callable[[int], str]:
    from num2words import CONVERTER_CLASSES, num2words

    # Asked for an unknown language num2words raises, but for "xx_YY" it would silently answer in
    # "xx": only an exact entry counts.
    if language not in CONVERTER_CLASSES:
        raise _Absent("num2words does not spell its numbers")
    return lambda n: num2words(n, lang=language)


def _teller(language: str, currency: str) -> Callable[[int], str]:
    """Whole amounts of a currency in words."""
    if language == "th":
        from pythainlp.util import bahttext

        return bahttext
    from num2words import CONVERTER_CLASSES, num2words

    # Some converters name one currency whatever is asked for (Arabic), so the form must be listed.
    converter = CONVERTER_CLASSES.get(language)
    if converter is None or currency not in getattr(converter, "CURRENCY_FORMS", {}):
        raise _Absent(f"num2words has no words for {currency or 'its currency'}")

    def tell(n: int) -> str:
        # float: an int is taken as cents. The part after the separator is "zero cents".
        try:
            text = num2words(
                float(n), to="currency", currency=currency, lang=language, separator="\n"
            )
        except TypeError:  # converters for currencies without a smaller unit take no separator
            text = num2words(float(n), to="currency", currency=currency, lang=language)
        return text.split("\n")[0]

    return tell


def _date_writer(language: str) -> Callable[[date], str]:
    if pack(language).calendar == "buddhist":
        from datetime import datetime

        from pythainlp.util import thai_strftime

        return lambda day: thai_strftime(datetime(day.year, day.month, day.day), "%-d %B %Y")
    from babel.dates import format_date

    locale = locale_of(language)
    return lambda day: format_date(day, "long", locale)


def _quantity(n: int, unit: str, language: str) -> str:
    """A number with the name of its unit; "" where CLDR has no pattern.

    By CLDR's inheritance an absent long form is the short one. Babel stops at the absence and
    writes the unit's identifier ("3 duration-minute"), and its get_unit_name gives None.
    """
    from babel.units import format_unit

    for length in ("long", "short"):
        text = format_unit(n, unit, length, locale=locale_of(language))
        if unit not in text:
            return text
    return ""
