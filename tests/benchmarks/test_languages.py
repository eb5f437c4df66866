"""The language benchmark measures a folder of texts, and says what is missing in another."""

import gzip
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import languages, languages_page

TEXTS = {"th": "ใช้ Python 3 ได้", "ko": "나는 Python을 쓴다", "text": "한글 ไทย"}


@pytest.fixture
def data(tmp_path):
    """Every file of SWITCHING with one row that has a text in each field."""
    for _, _, pattern, _ in languages.SWITCHING:
        file = tmp_path / pattern.replace("*", "")
        file.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(file, "wt", encoding="utf-8") as opened:
            opened.write(json.dumps(TEXTS) + "\n")
    return tmp_path


def test_switches_are_measured_by_source(data):
    by_source = {(row["source"], row["language"]): row for row in languages._switching(data)}
    flores = by_source["FLORES dev, devtest", "th"]
    assert flores["switches_per_word"] == 2 / 4
    assert flores["foreign_share"] == 0 and flores["in_language"] == 1
    assert flores["foreign_share_with_latin"] == 6 / 12
    social = by_source["social media (Wisesight)", "th"]
    assert social["in_language"] == 0 and social["foreign_share"] == 2 / 5
    assert "| FLORES dev, devtest | th | 100.0% |" in languages_page.page(
        {"switches": list(by_source.values())}
    )


def test_a_folder_without_the_texts_is_named(tmp_path, capsys):
    assert languages.main([str(tmp_path), "--part", "switches"]) == 3
    assert "no file of the benchmark's data" in capsys.readouterr().err
    assert languages.main([str(tmp_path / "none")]) == 3
