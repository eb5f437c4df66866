"""Rows made of sections that are plugged in: texts, questions, conversations and searches."""

import pytest

from endonym.core.artifact import Artifact
from endonym.core.errors import DataError, RecipeError
from endonym.data.document import Conversation, Document, read_table
from endonym.data.sections import Section, write_sections
from endonym.stages.conversations import STAGE as CONVERSATIONS
from endonym.stages.documents import STAGE as DOCUMENTS
from endonym.stages.items import STAGE as ITEMS
from endonym.synth import definitions, lookups
from endonym.tasks.base import read_items
from eval.tiny import context

LAW = "พระราชบัญญัติว่าว พ.ศ. 2500"
TERMS = [
    Section(f"k/3/{term}", LAW, "3", term, meaning, "th", "invented", "CC0-1.0")
    for term, meaning in {
        "ว่าว": "สิ่งที่ลอยด้วยลม",
        "เชือก": "ด้ายที่ฟั่นเป็นเกลียว",
        "สนาม": "ที่โล่งกว้าง",
        "นาย": "ผู้ได้รับใบอนุญาต",
        "ลูก": "ผู้ช่วยของผู้อื่น",
        "หาง": "แถบผ้ายาว",
    }.items()
]
WHOLE = [
    Section("k/7", LAW, "7", "", "ห้ามผู้ใดชักในเวลากลางคืน", "th", "invented", "CC0-1.0"),
    Section("k/8", LAW, "8", "", "ผู้ใดฝ่าฝืนต้องระวางโทษปรับ", "th", "invented", "CC0-1.0"),
]


def shelf(folder, name, rows):
    folder = folder / name
    folder.mkdir()
    write_sections(folder / "sections.parquet", rows)
    return Artifact(folder, {"files": {"sections.parquet": {}}, "licences": ["CC0-1.0"]})


def run(stage, folder, sources, **inputs):
    out = folder / f"out{len(list(folder.iterdir()))}"
    out.mkdir()
    config = stage.config.read({"sources": sources})
    outcome = stage.run(config, context(folder), out, inputs)
    table = {
        "documents": lambda: list(read_table(out / "documents.parquet", Document)),
        "conversations": lambda: list(read_table(out / "conversations.parquet", Conversation)),
        "items": lambda: read_items(out / "items.parquet"),
    }[stage.kind]()
    return outcome, table


def test_documents_of_each_task(tmp_path):
    both = {"a": shelf(tmp_path, "a", TERMS), "b": shelf(tmp_path, "b", WHOLE)}
    source = {"builtin": "sections"}
    outcome, rows = run(DOCUMENTS, tmp_path, [source], sections=both)
    assert rows == list(definitions.whole([*TERMS, *WHOLE]))
    assert outcome.licences == ["CC0-1.0"]
    tasks = [
        source | {"tasks": ["passage"], "name": "told"},
        source | {"tasks": ["question"], "groups": ["asked"], "name": "answered"},
    ]
    outcome, rows = run(DOCUMENTS, tmp_path, tasks, sections={"a": both["a"]})
    asked = definitions.of_halves(TERMS, ["asked"])
    assert 0 < len(asked) < len(TERMS)
    assert rows == [*definitions.passages(TERMS), *definitions.answered(asked)]
    assert [row["rows"] for row in outcome.figures["sources"]] == [6 * 6, 4 * len(asked)]
    search = source | {"tasks": ["search"], "top": 1, "seed": 4}
    _, rows = run(DOCUMENTS, tmp_path, [search], sections=both)
    assert rows == list(lookups.documents([*TERMS, *WHOLE], top=1, seed=4))


def test_conversations_are_answers_or_searches(tmp_path):
    terms = {"a": shelf(tmp_path, "a", TERMS)}
    _, rows = run(CONVERSATIONS, tmp_path, [{"builtin": "sections"}], sections=terms)
    assert rows == list(definitions.conversations(TERMS))
    search = {"builtin": "sections", "tasks": ["search"], "amount": 5}
    _, rows = run(CONVERSATIONS, tmp_path, [search], sections=terms)
    assert [row.id for row in rows] == [row.id for row in lookups.conversations(TERMS)][:5]
    assert rows[0].tools


def test_items_of_a_half_and_a_split(tmp_path):
    terms = {"a": shelf(tmp_path, "a", TERMS)}
    outcome, found = run(
        ITEMS, tmp_path, [{"builtin": "sections", "groups": ["text"]}], sections=terms
    )
    assert found == definitions.items(definitions.of_halves(TERMS, ["text"]), "test")
    assert "1 laws" in outcome.figures["splits"][0]
    _, trained = run(ITEMS, tmp_path, [{"builtin": "sections", "split": "train"}], sections=terms)
    assert {item.split for item in trained} == {"train"}


@pytest.mark.parametrize("stage", [DOCUMENTS, CONVERSATIONS, ITEMS])
def test_without_sections_it_is_an_error(stage, tmp_path):
    with pytest.raises(RecipeError, match="no sections"):
        run(stage, tmp_path, [{"builtin": "sections"}])


def test_what_cannot_be_made_is_named(tmp_path):
    whole = {"a": shelf(tmp_path, "a", WHOLE)}
    with pytest.raises(DataError, match="defines no term"):
        run(ITEMS, tmp_path, [{"builtin": "sections"}], sections=whole)
    wrong = {"builtin": "sections", "tasks": ["passage"]}
    with pytest.raises(RecipeError, match="'passage'"):
        run(CONVERSATIONS, tmp_path, [wrong], sections=whole)
    with pytest.raises(RecipeError, match="not be heeded"):
        run(DOCUMENTS, tmp_path, [{"builtin": "sections", "turns": 2}], sections=whole)
