"""The stage preferences: pairs out of files, and pairs made of text for a judge of fluency."""

import json

import pytest

from endonym.core.artifact import Artifact
from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.data.document import Document, Preference, read_table, write_table
from endonym.stages.preferences import STAGE, PreferencesConfig, preferences
from endonym.synth import handbook
from endonym.tasks.base import Item, write_items

CONTEXT = Context(console=Console(quiet=True))


def run(folder, source, *, text=None, without=None, **settings):
    folder.mkdir()
    config = PreferencesConfig.read({"sources": [source], **settings})
    outcome = preferences(config, CONTEXT, folder, without=without or {}, text=text or {})
    return list(read_table(folder / "preferences.parquet", Preference)), outcome


def plugged(folder, rows):
    folder.mkdir()
    write_table(folder / "documents.parquet", rows)
    record = {"files": {"documents.parquet": {}}, "address": "a", "kind": "documents"}
    return {"text": Artifact(folder, record)}


def exam(folder, prompt):
    folder.mkdir()
    asked = [{"role": "user", "content": prompt}]
    write_items(
        folder / "items.parquet",
        [Item(id="1", kind="answer", task="t", messages=asked, answer="x")],
    )
    return {
        "exam": Artifact(folder, {"files": {"items.parquet": {}}, "address": "a", "kind": "items"})
    }


def test_pairs_of_a_file_with_what_cannot_be_read_set_aside(tmp_path):
    rows = [
        {"prompt": "q1", "chosen": "a", "rejected": "b"},
        {"prompt": "q2", "chosen": "same", "rejected": "same"},
        {"prompt": "จังหวัดใดใช้อักษรย่อ ปข ในเอกสารราชการ", "chosen": "a", "rejected": "b"},
        {"prompt": "q3", "chosen": "a", "rejected": "จังหวัดใดใช้อักษรย่อ ปข ในเอกสารราชการ นะ"},
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"path": str(path), "licence": "CC0-1.0"}
    without = exam(tmp_path / "exam", "จังหวัดใดใช้อักษรย่อ ปข ในเอกสารราชการ")
    found, outcome = run(tmp_path / "out", source, without=without, quarantine=0.5)
    assert [row.prompt[0]["content"] for row in found] == ["q1"]
    assert outcome.licences == ["CC0-1.0"]
    (figures,) = outcome.figures["sources"]
    assert (figures["quarantined"], figures["reasons"]) == (1, {"contamination": 2})
    entry = json.loads((tmp_path / "out" / "quarantine.0.jsonl").read_text())
    assert entry["line"] == 2 and "the same" in entry["reason"]


def test_fluency_pairs_of_the_almanac_and_the_handbook(tmp_path):
    source = {"builtin": "fluency", "language": "th", "amount": 150}
    found, outcome = run(tmp_path / "out", source)
    assert len(found) == 150 == outcome.figures["preferences"]
    assert {row.source for row in found} == {"endonym handbook", "endonym almanac"}
    assert sum(outcome.figures["tasks"].values()) == 150 and len(outcome.figures["tasks"]) == 6
    again, _ = run(tmp_path / "again", source)
    assert found == again
    parts = {}
    for split in ("train", "test"):
        rows, _ = run(tmp_path / split, source | {"split": split, "held_out": 0.2})
        parts[split] = {row.chosen[0]["content"] for row in rows}
    assert not parts["train"] & parts["test"] and len(parts["test"]) > 5


def test_fluency_pairs_of_plugged_text(tmp_path):
    other = Document("x", "This document is in another language.", "en")
    text = plugged(tmp_path / "text", [other, *handbook.documents("th")])
    source = {"builtin": "fluency", "language": "th", "damage": ["order"]}
    found, outcome = run(tmp_path / "out", source, text=text)
    assert {row.task for row in found} == {"order"} and len(found) > 50
    assert {row.source for row in found} == {handbook.SOURCE}
    assert outcome.licences == [handbook.LICENCE]


def test_what_a_source_must_say(tmp_path):
    with pytest.raises(RecipeError, match="fluency needs to know"):
        run(tmp_path / "1", {"builtin": "fluency", "amount": 5})
    with pytest.raises(RecipeError, match="how many pairs"):
        run(tmp_path / "2", {"builtin": "fluency", "language": "th"})
    with pytest.raises(RecipeError, match="no source uses them"):
        text = plugged(tmp_path / "text", handbook.documents("th"))
        run(tmp_path / "3", {"path": "x.jsonl"}, text=text)
    with pytest.raises(RecipeError, match="does not fit"):
        PreferencesConfig.read({"sources": [{"builtin": "almanac"}]})
    assert STAGE.kind == "preferences" and set(STAGE.slots) == {"without", "text"}
