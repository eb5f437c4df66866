"""What CLDR (through Babel) says of a language: the beginning of its pack.

    from_cldr("lo") -> {"name": "Lao", "own_name": "ລາວ", "scripts": ["Laoo"], "digits": "໐໑...", ...}

Nothing is guessed beyond it: UNCHECKED lists what only a speaker can say.
"""

import re

from endonym.core.errors import DataError
from endonym.lang.script import COMPOUNDS, RANGES

CODE = re.compile("[A-Za-z0-9]+([-_][A-Za-z0-9]+)*")

# Scripts written without spaces between words: cutting at spaces would count clauses.
UNSPACED = {"Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Hira", "Kana", "Hani", "Java", "Bali"}

# What CLDR cannot say: the sentences of `unchecked` for a language that nobody has written yet.
UNCHECKED = (
    "own_name, digits, currency: CLDR's; read them once",
    "scripts: add those that a modern text also uses (CLDR gives the likeliest one)",
    "calendar: official years may not be the common era's",
    "count: name an engine for words, sentences and syllables, or say that these are right",
    "normalize: which rules of lang/normalize.py its text needs besides NFC",
    "polite, particles, honorifics: fill in, or say that the language has none",
    "lead_ins and choice: the words before an answer; until then questions are put without words",
    "filters: calibrate on clean text; until then no measure that depends on the language filters",
    "stop_words.txt: the most frequent function words, fifty or more",
    "examples: one text or more, with its words and sentences",
    "tasks: the benchmarks of the language",
    "almanac.toml: sentences for facts, as in our own packs; until then facts are told as key: value",
    "licences: the source and terms of whatever is added",
)


def locale_of(language: str):
    """Babel's locale of a language code, or an error that says CLDR has none."""
    from babel import Locale, UnknownLocaleError

    try:
        if not CODE.fullmatch(language):  # Babel would pass over what follows "." and "@"
            raise ValueError(language)
        return Locale.parse(language, sep="-" if "-" in language else "_")
    except (UnknownLocaleError, ValueError):
        raise DataError(
            f"CLDR knows no language {language!r}",
            wanted="an ISO 639 code such as th, ko, lo, or one with a script such as sr_Latn",
            do="see the list of locales in the Babel documentation",
        ) from None


def from_cldr(language: str, own: dict | None = None) -> dict:
    """What CLDR says of a language, and over it what its own pack.toml says.

    CLDR need not know the language, nor our table its script, where the pack names them itself.
    """
    from babel.core import get_global
    from babel.numbers import get_territory_currencies

    own = own or {}
    try:
        locale = locale_of(language)
    except DataError:
        if not own.keys() >= {"name", "own_name", "scripts"}:
            raise
        return {"language": language, "count": _count(own["scripts"])} | own
    likely = get_global("likely_subtags")
    named = f"{locale.language}_{locale.script}"  # zh_Hant is likely Taiwan's, zh China's
    parts = (likely.get(named) or likely.get(locale.language, "")).split("_")
    script = locale.script or next((p for p in parts[1:] if len(p) == 4), "")
    territory = locale.territory or next((p for p in parts[1:] if len(p) == 2), "")
    scripts = own.get("scripts") or [c for c in COMPOUNDS.get(script, (script,)) if c in RANGES]
    if not scripts:
        raise DataError(
            f"the script {script or 'unknown'!r} of {language!r} is not in the table",
            where="lang/script.py: RANGES",
            do="add its ranges of code points there, or scripts = [...] to a pack of the language",
        )
    currencies = get_territory_currencies(territory) if territory else []
    return {
        "language": language,
        "name": locale.get_display_name("en") or language,
        "own_name": locale.get_display_name() or language,
        "scripts": scripts,
        "digits": _native_digits(locale),
        "currency": currencies[0] if currencies else "",
        "count": _count(scripts),
        "unchecked": list(UNCHECKED) if not own else [],
    } | own


def _count(scripts: list[str]) -> dict[str, str]:
    """Spaces part the words, but in some scripts."""
    return {"words": "none" if any(code in UNSPACED for code in scripts) else "space"}


def _native_digits(locale) -> str:
    """The ten digits of CLDR's native numbering system; "" for 0-9 and for systems without digits.

    CLDR names a system by its script ("thai", "laoo"); "arabext" is the eastern set of "Arab".
    """
    system = locale.other_numbering_systems.get("native", "latn")
    if system == "arabext":
        return "".join(map(chr, range(0x6F0, 0x6FA)))
    points = [p for low, high in RANGES.get(system.title(), []) for p in range(low, high + 1)]
    return "".join([chr(p) for p in points if chr(p).isdecimal()][:10])
