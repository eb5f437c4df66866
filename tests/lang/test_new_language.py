"""`endonym new-language`: the thin packs are what it writes, it overwrites nothing, its JSON is whole."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner

from endonym.cli import app
from endonym.core.errors import DataError, RecipeError
from endonym.lang import new_language
from endonym.lang.new_language import render, write
from endonym.lang.pack import check, pack, pack_from

OURS = Path(str(files("endonym.lang"))) / "packs"


@pytest.mark.parametrize("language", ["lo", "km", "vi", "id", "mn"])
def test_the_thin_packs_are_what_the_command_writes(language):
    assert (OURS / language / "pack.toml").read_text(encoding="utf-8") == render(language)
    assert [file.name for file in (OURS / language).iterdir()] == ["pack.toml"]


@pytest.mark.parametrize("language", ["my", "fa", "ja", "sr_Latn", "sw", "th", "zh_Hant"])
def test_any_language_passes_the_packs_own_tests(tmp_path, language):
    folder = write(language, tmp_path)
    assert check(folder) == []
    found = pack_from(folder)
    assert found.unchecked and not found.written
    assert [path.name for path in tmp_path.iterdir()] == [language]  # nothing left from making it


def test_a_speaker_finishes_it(tmp_path):
    file = write("sw", tmp_path) / "pack.toml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text[: text.index("unchecked = [")] + text[text.index("[licences]") :])
    assert pack_from(file.parent).written


def test_nothing_is_overwritten(tmp_path):
    file = write("lo", tmp_path) / "pack.toml"
    file.write_text("mine")
    with pytest.raises(RecipeError, match="nothing is overwritten"):
        write("lo", tmp_path)
    assert file.read_text() == "mine"


def test_an_unsound_pack_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(new_language, "FILE", new_language.FILE.replace("normalize = []", 'x = ""'))
    with pytest.raises(DataError, match="unknown key 'x'"):
        write("lo", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", ["xx", "../lo", "lo.UTF-8/../../x", "lo@x", ""])
def test_what_is_no_language_is_refused(tmp_path, code):
    with pytest.raises(DataError, match="CLDR knows no language"):
        write(code, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_has_cldrs_spelling(tmp_path):
    assert write("zh-hant", tmp_path).name == "zh_Hant"


def test_the_command_says_what_to_check(tmp_path):
    done = CliRunner().invoke(app, ["new-language", "km", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for line in pack_from(tmp_path / "km").unchecked:
        assert line in done.output
    assert "no numbers: num2words" in done.output
    assert f"export ENDONYM_PACKS={tmp_path}" in done.output
    assert "hides it whole" in done.output


def test_the_command_in_json(tmp_path):
    done = CliRunner().invoke(app, ["new-language", "sw", "--out", str(tmp_path), "--json"])
    told = json.loads(done.stdout)
    assert told["path"] == str(tmp_path / "sw") and told["pack"]["own_name"] == "Kiswahili"
    assert told["unchecked"] == pack_from(tmp_path / "sw").unchecked
    assert "countries" in told["facts"] and "numbers" in told["missing_facts"]
    assert not told["hides_ours"]


def test_a_folder_of_ones_own_is_where_it_is_written(tmp_path, monkeypatch):
    # Not a language whose facts other tests ask for: they are remembered by language.
    monkeypatch.setenv("ENDONYM_PACKS", str(tmp_path))
    assert CliRunner().invoke(app, ["new-language", "sw"]).exit_code == 0
    assert pack("sw").unchecked and (tmp_path / "sw" / "pack.toml").is_file()
