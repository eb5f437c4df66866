"""Packs: ours pass their own tests, each complaint has its case, a user's folder is looked in first."""

import shutil
from importlib.resources import files
from pathlib import Path

import pytest

from endonym.core.errors import DataError, EndonymError, RecipeError
from endonym.lang.pack import (
    Filters,
    check,
    pack,
    pack_from,
    packs,
    read_packed,
    stop_words,
)
from endonym.lang.quality import Measures

OURS = Path(str(files("endonym.lang"))) / "packs"
COMPLETE = ["en", "ko", "th"]
THIN = ["id", "km", "lo", "mn", "vi"]


@pytest.mark.parametrize("language", COMPLETE + THIN)
def test_our_packs_pass_their_own_tests(language):
    assert check(OURS / language) == []
    assert pack(language) == pack_from(OURS / language)


def test_which_packs_there_are():
    assert packs() == sorted(COMPLETE + THIN)
    assert [code for code in packs() if pack(code).written] == COMPLETE


@pytest.mark.parametrize("language", COMPLETE)
def test_a_complete_pack_says_everything(language):
    found = pack(language)
    assert len(stop_words(language)) >= 100 and found.examples and found.choice.markers
    assert found.honorifics and found.lead_ins and found.normalize and found.tasks
    for key in ("min_word_length", "max_word_length", "min_own_script", "min_word_letters"):
        assert getattr(found.filters, key) is not None
    assert {"pack", "cldr"} <= found.licences.keys()
    assert read_packed(language, "almanac.toml")["constraint"]


@pytest.mark.parametrize("language", COMPLETE)
def test_tasks_of_the_catalog_exist_and_none_is_forgotten(language):
    from endonym.tasks import catalog

    named = {task for task in pack(language).tasks if not task.startswith("lm-eval/")}
    assert named == {name for name in catalog.names() if catalog.entry(name).language == language}


def test_known_facts():
    assert pack("th").digits == "๐๑๒๓๔๕๖๗๘๙" and pack("th").calendar == "buddhist"
    assert pack("th").count.words == "newmm" and pack("ko").count.words == "space"
    assert pack("lo").digits == "໐໑໒໓໔໕໖໗໘໙" and pack("lo").count.words == "none"
    assert pack("ko").own_name == "한국어" and "-에서" in stop_words("ko")
    assert stop_words("lo") == frozenset()


def test_a_language_without_a_pack_comes_from_cldr():
    assert pack("fa").digits == "۰۱۲۳۴۵۶۷۸۹"  # not the Arabic set of the same script
    assert pack("zh_Hant").currency == "TWD" and pack("zh").currency == "CNY"
    assert not pack("ja").written and pack("ja").scripts == ["Hira", "Kana", "Hani"]
    assert pack("de").count.words == "space" and pack("my").count.words == "none"
    for code in ("xx", "../th", "th.UTF-8"):
        with pytest.raises(DataError, match="CLDR knows no language"):
            pack(code)


def test_every_threshold_bounds_a_measure():
    settings = {"line_ends", "short_line"}  # say how a measure is taken
    bounds = Filters.model_fields.keys() - settings
    assert {name.partition("_")[2] for name in bounds} == set(Measures.__dataclass_fields__)


def written(folder: Path, language: str, text: str, **files_: str) -> Path:
    place = folder / language
    place.mkdir(parents=True)
    (place / "pack.toml").write_text(text, encoding="utf-8")
    for name, content in files_.items():
        (place / f"{name}.txt").write_text(content, encoding="utf-8")
    return place


CLDR = '[licences]\ncldr = { source = "CLDR", licence = "Unicode-3.0" }\n'
PACK = CLDR + 'pack = { source = "us", licence = "Apache-2.0" }\n'


@pytest.mark.parametrize(
    "text, reason",
    [
        ('own_name = "Deutsch ไทย"\n' + CLDR, "own_name: .* foreign letters: Thai"),
        ('normalize = ["widht"]\n' + CLDR, "there is no rule 'widht'; did you mean 'width'"),
        ('polite = ["ครับ"]\n' + CLDR, "polite: 'ครับ' is not written in Latn"),
        ('lead_ins = ["die "]\n' + CLDR, "lead_ins: 'die ' .* space at its ends"),
        ('honorifics = ["Herr", "Herr"]\n' + CLDR, "honorifics: a word stands twice"),
        ('particles = ["scho\u0308n"]\n' + CLDR, "particles: .* not normalised"),
        (CLDR + '[choice]\nprompt = "{question}"', "choice.prompt: wanted the places"),
        (CLDR + '[choice]\nreply = "{"', "choice.reply: "),
        (CLDR + '[choice]\nmarkers = ["Antwort"]', "choice.markers: none of them"),
        ('count = { words = "newmm" }\n' + CLDR, "count.words: newmm cuts Thai"),
        ('count = { sentences = "kiwi" }\n' + CLDR, "extra: count.sentences = 'kiwi' needs 'ko'"),
        ('count = { sentences = "kiwi" }\n' + CLDR, "licences: sentences is missing"),
        ('scripts = ["Thai"]\ncount = { words = "space" }\n' + CLDR, "no spaces between words"),
        (CLDR + "[filters]\nmin_words = 9\nmax_words = 9", "min_words is not below max_words"),
        (CLDR + "[filters]\nmin_stop_words = 1", "stop_words.txt holds 0 words"),
        (CLDR + "[filters]\nmin_line_ends = 0.1", "line_ends names no mark"),
        ('currency = "EUR"', "licences: cldr is missing"),
        (CLDR + 'cdlr = { source = "", licence = "" }', "no part 'cdlr'; did you mean 'cldr'"),
        (CLDR + '[[examples]]\ntext = "นี่"', "examples: text 1 is not in the language's scripts"),
        (CLDR + '[[examples]]\ntext = "Ja."\nsentences = ["Ja"]', r"has the sentences \['Ja.'\]"),
        (CLDR + '[[examples]]\ntext = "a b"\nwords = ["ab"]', r"has the words \['a', 'b'\]"),
    ],
)
def test_each_complaint_has_its_case(tmp_path, text, reason):
    import re

    found = check(written(tmp_path, "de", text))
    assert any(re.search(reason, line) for line in found), found


@pytest.mark.parametrize(
    "listed, reason",
    [
        ("Und", "not in lower case"),
        ("und so", "'und so' is no word of space"),
        ("ครับ", "is not written in Latn"),
    ],
)
def test_stop_words_that_would_never_be_found(tmp_path, listed, reason):
    found = check(written(tmp_path, "de", PACK, stop_words=f"# German\n{listed}\n"))
    assert len(found) == 1 and reason in found[0]
    sound = written(tmp_path / "b", "de", PACK, stop_words="und  # and\n\n-lich\n")
    assert check(sound) == []
    (sound / "pack.toml").write_text(CLDR)
    assert check(sound) == ["licences: pack is missing: its source and licence"]


@pytest.mark.parametrize(
    "text, message",
    [
        ('segmenter = "space"', "unknown key 'segmenter'"),
        ('honorific = ["Herr"]', "did you mean 'honorifics'"),
        ("[filters]\nmin_word = 3", "did you mean 'min_words'"),
        ('language = "de"', "the folder's name says it"),
        ("written = true", "unknown key 'written'"),
        ('scripts = ["Latin"]', "one or more codes of the table RANGES"),
        ('digits = "0123"', "the ten digits from zero to nine"),
        ('count = { words = "spaces" }', "a value does not fit its field"),
        ("[filters", "not TOML"),
    ],
)
def test_a_pack_that_cannot_be_read(tmp_path, text, message):
    folder = written(tmp_path, "de", text)
    with pytest.raises(EndonymError, match=message) as caught:
        pack_from(folder)
    assert str(folder) in str(caught.value)  # every one names the file
    assert len(check(folder)) == 1


def test_broken_utf8_and_no_pack(tmp_path):
    folder = written(tmp_path, "de", PACK)
    (folder / "stop_words.txt").write_bytes(b"und\n\xff\n")
    assert "not UTF-8" in check(folder)[0] and "byte 4" in check(folder)[0]
    with pytest.raises(DataError, match="no pack here"):
        pack_from(tmp_path / "fr")


def test_a_folder_of_ones_own_is_looked_in_first(tmp_path, monkeypatch):
    written(tmp_path, "th", 'polite = ["จ้ะ"]\n' + PACK, stop_words="ที่\n")
    written(tmp_path, "tlh", 'name = "K"\nown_name = "tlhIngan"\nscripts = ["Latn"]\n' + CLDR)
    before = pack("th")
    monkeypatch.setenv("ENDONYM_PACKS", str(tmp_path))
    assert pack("th").polite == ["จ้ะ"] and stop_words("th") == {"ที่"}
    assert read_packed("th", "almanac.toml") == {}  # the whole pack, no file of ours beside it
    assert pack("tlh").count.words == "space"  # a language that CLDR need not know
    assert "tlh" in packs() and pack("ko").extra == "ko"
    monkeypatch.delenv("ENDONYM_PACKS")
    assert pack("th") == before and "tlh" not in packs()
    monkeypatch.setenv("ENDONYM_PACKS", str(tmp_path / "none"))
    with pytest.raises(DataError, match="folder of your packs does not exist"):
        pack("th")


def test_an_engine_that_is_not_installed_is_named(tmp_path, monkeypatch):
    """pack() and check() read a pack without its extra; the engine says what to install."""
    import sys

    from endonym.lang import segment

    for cached in (segment._cut, segment._newmm):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, "nlpo3", None)
    found = check(shutil.copytree(OURS / "th", tmp_path / "th"))
    assert found and all("pip install 'endonym[th]'" in line for line in found)
    assert pack("th").extra == "th"


def test_unknown_keys_of_a_list_are_named_too(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'sentences'"):
        pack_from(written(tmp_path, "de", '[[examples]]\ntext = "x"\nsentence = ["x"]'))
