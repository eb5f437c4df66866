"""A language's pack: the little that a program must be told about it. Packs are data files.

    packs/<language>/pack.toml        the keys of `Pack` below, but for `language`, which the folder says
    packs/<language>/stop_words.txt   the most frequent function words, one a line, # comments
    packs/<language>/almanac.toml     sentences for the almanac's facts (synth/almanac.py)
    packs/<language>/needle.toml      statements to hide in long texts, and their questions (tasks/needle.py)
    packs/<language>/instruct.toml    constraints on a reply's form (synth/instruct/pool.py)
    packs/<language>/bylaws.toml      an invented statute book (synth/bylaws.py)
    packs/<language>/definitions.toml how laws define terms and how one asks for them (synth/definitions.py)
    packs/<language>/recite.toml      how a passage of a law is asked for (stages/recite.py)

A folder named by ENDONYM_PACKS is looked in first: a pack there stands for the whole language, none
of its files is mixed with ours. What a pack.toml leaves out comes from CLDR: names, scripts, native
digits, currency, words cut at spaces where the script uses them. A language without a pack has that
alone. Nothing is guessed beyond it: `unchecked` lists what a speaker must still say.
"""

import os
import tomllib
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from endonym.core.config import Config
from endonym.core.errors import DataError, EndonymError, RecipeError
from endonym.lang.cldr import CODE, from_cldr
from endonym.lang.script import RANGES


class CountEngines(Config):
    """What cuts a text when it is counted (lang/segment.py)."""

    words: Literal["newmm", "kiwi", "space", "none"] = "none"
    """newmm: pythainlp's dictionary, cut by nlpo3. kiwi: Korean morphemes. space: between spaces.
    none: the language is written without spaces and has no engine here; counting is an error."""
    sentences: Literal["marks", "crfcut", "kiwi"] = "marks"
    """marks: lines and . ! ? with their relatives. crfcut: pythainlp's. kiwi: kiwipiepy's."""
    syllables: Literal["thai", "hangul", "none"] = "none"


class ChoiceWords(Config):
    """How a question with numbered options is asked and answered."""

    reply: str = "({number})"
    prompt: str = "{question}\n{options}"
    markers: list[str] = Field(default_factory=list)
    """What stands before the chosen option in a reply: "the answer is"."""


class Filters(Config):
    """A document is kept between these: min_X and max_X bound the measure X of lang/quality.py.

    The defaults are Gopher's (Rae et al. 2021, appendix A) where a measure hardly depends on the
    language. None: it does, and nobody has said its value, so it refuses nothing.
    """

    min_words: int = 50
    max_words: int = 100_000
    min_word_length: float | None = None
    """Mean characters a word; Gopher's English value is 3."""
    max_word_length: float | None = None
    """Gopher's English value is 10."""
    min_stop_words: int = 0
    """Different stop words of the pack that occur; Gopher's English value is 2 of 8."""
    min_own_script: float | None = None
    """Share of the letters that are of the language's own scripts."""
    min_word_letters: float | None = None
    """Share of the words that hold a letter; Gopher's English value is 0.8."""
    max_digits: float | None = None
    """Share of digits among characters that are no space."""
    max_symbols: float = 0.1
    """"#" or ellipses a word."""
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    line_ends: str = ""
    """Characters that end a sentence. "": the language ends sentences without a mark (Thai)."""
    min_line_ends: float | None = None
    """Share of lines that end in one of `line_ends`; FineWeb's English value is 0.12."""
    short_line: int = 30
    """A line of at most so many characters is short."""
    max_short_lines: float | None = None
    """FineWeb's English value is 0.67."""
    max_duplicate_lines: float = 0.3
    max_duplicate_line_characters: float = 0.2
    max_lines: float | None = None
    """Lines a word: lists and menus have many. FineWeb's English value is 0.3."""
    max_top_ngrams: tuple[float, float, float] = (0.20, 0.18, 0.16)
    """Characters covered by the most frequent 2-, 3- and 4-gram of words."""
    max_duplicate_ngrams: tuple[float, float, float, float, float, float] = (
        *(0.15, 0.14, 0.13),
        *(0.12, 0.11, 0.10),
    )
    """Characters inside 5- to 10-grams of words that stood before."""


class Licence(Config):
    """Where a part of the pack comes from and on what terms."""

    source: str
    licence: str
    """SPDX identifier, or words where there is none."""


class Example(Config):
    """A text and how its language cuts it: the pack's own test of its engines."""

    text: str
    words: list[str] = Field(default_factory=list)
    """[]: not said."""
    sentences: list[str] = Field(default_factory=list)


class Pack(Config):
    language: str
    name: str
    """The language's English name in CLDR."""
    own_name: str
    """The language's name in itself: its endonym."""
    scripts: list[str]
    """ISO 15924 codes of the language's own scripts."""
    digits: str = ""
    """The ten native digits from zero; "" where the language writes 0-9 only."""
    calendar: Literal["gregorian", "buddhist"] = "gregorian"
    currency: str = ""
    """ISO 4217."""
    count: CountEngines = CountEngines()
    extra: Literal["", "th", "ko"] = ""
    """The extra of this package that installs the engines: pip install 'endonym[th]'."""
    normalize: list[str] = Field(default_factory=list)
    """Rules of lang/normalize.py that the language's text needs besides NFC, in their order."""
    sentence_join: str = " "
    polite: list[str] = Field(default_factory=list)
    """Endings of which a polite reply carries one."""
    particles: list[str] = Field(default_factory=list)
    """Small words that carry manner or grammar beside a word or clause: Thai นะ, Korean josa."""
    honorifics: list[str] = Field(default_factory=list)
    """Titles and forms by which a person is respectfully named or addressed."""
    lead_ins: list[str] = Field(default_factory=list)
    """Words before a short answer that are not part of it."""
    choice: ChoiceWords = ChoiceWords()
    filters: Filters = Filters()
    tasks: list[str] = Field(default_factory=list)
    """Benchmarks of the language: names of tasks/catalog, and "lm-eval/NAME" for those of
    lm-evaluation-harness."""
    licences: dict[str, Licence] = Field(default_factory=dict)
    """By part: "pack", "cldr", "stop_words", and every engine of `count` that is not ours."""
    examples: list[Example] = Field(default_factory=list)
    unchecked: list[str] = Field(default_factory=list)
    """What a speaker must still check, one sentence each: "key: what to do". Without a pack.toml, all
    that CLDR cannot say (UNCHECKED in lang/cldr.py)."""

    @property
    def written(self) -> bool:
        """Whether nothing is marked as left to check."""
        return not self.unchecked

    @field_validator("scripts")
    @classmethod
    def _known_scripts(cls, scripts: list[str]) -> list[str]:
        lacking = [code for code in scripts if code not in RANGES]
        if not scripts or lacking:
            raise ValueError("one or more codes of the table RANGES in lang/script.py")
        return scripts

    @field_validator("digits")
    @classmethod
    def _ten_digits(cls, digits: str) -> str:
        if digits and not (
            all(character.isdecimal() for character in digits)
            and [int(character) for character in digits] == list(range(10))
        ):
            raise ValueError("the ten digits from zero to nine, or nothing")
        return digits


def pack(language: str) -> Pack:
    """The pack of a language by its ISO 639 code."""
    return _pack(language, os.environ.get("ENDONYM_PACKS", ""))


@lru_cache(maxsize=256)
def _pack(language: str, own_folder: str) -> Pack:
    folder = _folder(language)
    return _read(language, folder) if folder else Pack.read(from_cldr(language), language)


def pack_from(folder: Path) -> Pack:
    """The pack in any folder; the folder's name is the language's code."""
    if not (folder / "pack.toml").is_file():
        raise DataError("no pack here", where=folder, wanted="a folder <language> with a pack.toml")
    return _read(folder.name, folder)


def packs() -> list[str]:
    """Languages that have a pack.toml, in the folder ENDONYM_PACKS or among ours."""
    found = {
        entry.name
        for place in _places()
        for entry in place.iterdir()
        if entry.joinpath("pack.toml").is_file()
    }
    return sorted(found)


def has_own_pack(language: str) -> bool:
    """Whether the package itself has a pack of the language."""
    return files("endonym.lang").joinpath("packs", language, "pack.toml").is_file()


def read_packed(language: str, name: str) -> dict:
    """The contents of packs/<language>/<name>, or {} where the pack has no such file."""
    folder = _folder(language)
    return _toml(folder.joinpath(name)) if folder and folder.joinpath(name).is_file() else {}


def stop_words(language: str) -> frozenset[str]:
    """The stop words of a language's pack; none where it has no list.

    "-에서" is an ending: it stands in every longer word that ends so (lang/quality.py).
    """
    return _stop_words(language, os.environ.get("ENDONYM_PACKS", ""))


@lru_cache(maxsize=64)
def _stop_words(language: str, own_folder: str) -> frozenset[str]:
    folder = _folder(language)
    return read_stop_words(folder) if folder else frozenset()


def read_stop_words(folder: Traversable) -> frozenset[str]:
    """The words of stop_words.txt in a pack's folder; none where there is no such file."""
    file = folder.joinpath("stop_words.txt")
    lines = _text(file).splitlines() if file.is_file() else []
    return frozenset(filter(None, (line.partition("#")[0].strip() for line in lines)))


def _places() -> list[Traversable]:
    """Where packs are looked for, in order."""
    ours = files("endonym.lang").joinpath("packs")
    named = os.environ.get("ENDONYM_PACKS", "")
    if not named:
        return [ours]
    if not Path(named).is_dir():
        raise DataError(
            "the folder of your packs does not exist",
            where=f"ENDONYM_PACKS={named}",
            do="name a folder that holds <language>/pack.toml, or unset it",
        )
    return [Path(named), ours]


def _folder(language: str) -> Traversable | None:
    """The first folder that holds a pack of the language."""
    for place in _places() if CODE.fullmatch(language) else ():
        if place.joinpath(language, "pack.toml").is_file():
            return place.joinpath(language)
    return None


def _text(file: Traversable) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8", where=f"{file}: byte {error.start}") from None


def _toml(file: Traversable) -> dict:
    try:
        return tomllib.loads(_text(file))
    except tomllib.TOMLDecodeError as error:
        raise DataError("not TOML", where=file, got=error) from None


def _read(language: str, folder: Traversable) -> Pack:
    file = folder.joinpath("pack.toml")
    own = _toml(file)
    if "language" in own:
        raise RecipeError(
            "unknown key 'language'", where=file, do="leave it out: the folder's name says it"
        )
    return Pack.read(from_cldr(language, own), where=str(file))


def check(folder: Path) -> list[str]:
    """The pack's own tests: what is wrong with the pack in a folder, a sentence each; [] passes.

    A thin pack passes like a complete one: what it lacks stands in its `unchecked`, and what it says
    must be right. An engine that an example needs and that is not installed is a complaint.
    """
    from endonym.lang.pack_tests import complaints

    try:
        return list(complaints(pack_from(folder), folder))
    except EndonymError as error:
        return [str(error)]
