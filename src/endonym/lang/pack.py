"""A language's pack: the little that a program must be told about it. Packs are data files.

    packs/<language>/pack.toml      what a reply in the language looks like
    packs/<language>/almanac.toml   sentences for the almanac's facts (synth/almanac.py)

A language without a pack is taken from CLDR: its scripts and its currency from the likely subtags,
words cut at spaces where its script uses them, prompts in English. Nothing is guessed beyond that:
what such a language lacks is listed, not imitated.
"""

import tomllib
from functools import lru_cache
from importlib.resources import files

from pydantic import Field

from endonym.core.config import Config
from endonym.core.errors import DataError
from endonym.lang.script import COMPOUNDS, RANGES

# Scripts written without spaces between words: cutting at spaces would count clauses.
UNSPACED = {"Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Hira", "Kana", "Hani", "Java", "Bali"}


class ChoiceWords(Config):
    """How a question with numbered options is asked and answered."""

    reply: str = "({number})"
    prompt: str = "{question}\n{options}"
    markers: list[str] = Field(default_factory=list)
    """What stands before the chosen option in a reply: "the answer is"."""


class Pack(Config):
    language: str
    name: str
    """The language's English name in CLDR."""
    own_name: str
    """The language's name in itself: its endonym."""
    scripts: list[str]
    """ISO 15924 codes of the language's own scripts."""
    calendar: str = "gregorian"
    """"gregorian" | "buddhist"."""
    currency: str = ""
    segmenter: str = "none"
    """"newmm" (pythainlp) | "space" | "none"."""
    sentence_join: str = " "
    polite: list[str] = Field(default_factory=list)
    """Endings of which a polite reply carries one."""
    lead_ins: list[str] = Field(default_factory=list)
    """Words before a short answer that are not part of it."""
    choice: ChoiceWords = ChoiceWords()
    written: bool = False
    """True where a pack.toml of ours says these things, False where they come from CLDR alone."""


@lru_cache(maxsize=256)
def pack(language: str) -> Pack:
    """The pack of a language by its ISO 639 code."""
    data = _from_cldr(language)
    own = read_packed(language, "pack.toml")
    if own:
        data |= {"written": True} | own
    return Pack.read(data, where=f"pack {language}")


def packs() -> list[str]:
    """Languages that have a written pack."""
    folder = files("endonym.lang").joinpath("packs")
    return sorted(entry.name for entry in folder.iterdir() if entry.joinpath("pack.toml").is_file())


def read_packed(language: str, name: str) -> dict:
    """The contents of packs/<language>/<name>, or {} where the pack has no such file."""
    file = files("endonym.lang").joinpath("packs", language, name)
    if not file.is_file():
        return {}
    return tomllib.loads(file.read_text(encoding="utf-8"))


def locale_of(language: str):
    """Babel's locale of a language code, or an error that says CLDR has none."""
    from babel import Locale, UnknownLocaleError

    try:
        return Locale.parse(language, sep="-" if "-" in language else "_")
    except (UnknownLocaleError, ValueError):
        raise DataError(
            f"CLDR knows no language {language!r}",
            wanted="an ISO 639 code such as th, ko, lo, or one with a script such as sr_Latn",
            do="see the list of locales in the Babel documentation",
        ) from None


def _from_cldr(language: str) -> dict:
    from babel.core import get_global
    from babel.numbers import get_territory_currencies

    locale = locale_of(language)
    likely = get_global("likely_subtags").get(locale.language, "")
    parts = likely.split("_")
    script = locale.script or next((p for p in parts[1:] if len(p) == 4), "")
    territory = locale.territory or next((p for p in parts[1:] if len(p) == 2), "")
    scripts = [code for code in COMPOUNDS.get(script, (script,)) if code in RANGES]
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
        "currency": currencies[0] if currencies else "",
        "segmenter": "none" if UNSPACED & set(scripts) else "space",
    }
