"""The catalog: every entry compiles; readers; rows counted by reason; the real files, where present."""

import gzip
import json
import os
from pathlib import Path

import pytest

from endonym.core.errors import DataError, RecipeError
from endonym.tasks import catalog
from endonym.tasks.base import as_prompt, task_for

SHARED = Path(os.environ.get("ENDONYM_SHARED", Path(__file__).parents[2] / ".." / "shared"))
DATA = SHARED / "data"


def row(**fields) -> dict:
    base = {
        "exam": "onet",
        "year": "2564",
        "no": "1",
        "instruction": "ข้อใดถูก\\nเลือกหนึ่งข้อ",
        "input": "(1) ก\\n(2) ข (3) ค",
        "result": "(2) ข",
        "isAnswerable": "TRUE",
        "isMultipleChoice": "TRUE",
        "isSingleChoiceSolution": "TRUE",
        "note": "",
    }
    return base | fields


def write(path: Path, rows: list) -> Path:
    text = "".join(
        r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) + "\n" for r in rows
    )
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_rows_become_items_or_are_counted_by_reason(tmp_path):
    file = write(
        tmp_path / "rows.jsonl.gz",
        [
            row(),
            row(no="2", isAnswerable="FALSE"),
            row(no="3", isMultipleChoice="FALSE"),
            row(no="4", isSingleChoiceSolution="FALSE"),
            row(no="5", input="(1) ก (3) ค"),
            row(no="6", input="ก ข ค"),
            row(no="7", result="ข"),
            row(no="8", result="(5) จ"),
            row(no="9", input="(1) ก (2) ก"),
            "{not json\n",
            "[1]\n",
            {"exam": "onet"},
        ],
    )
    items, skipped = catalog.load("openthai_eval", file)
    assert skipped == {
        "not answerable": 1,
        "not multiple choice": 1,
        "more than one solution": 1,
        "options not readable": 2,
        "no readable gold answer": 1,
        "gold answer names no option": 1,
        "two options are the same": 1,
        "not a JSON object": 2,
        "a column is missing or of another kind": 1,
    }
    (item,) = items
    assert (item.id, item.task, item.answer) == ("onet/2564/1", "onet", "1")
    assert item.choices == ["ก", "ข", "ค"]
    assert item.context == "ข้อใดถูก\nเลือกหนึ่งข้อ\nคำตอบ: "
    assert "(3) ค" in item.messages[0]["content"] and "\\n" not in item.messages[0]["content"]


def test_mathematics_is_kept_only_where_the_working_arrives(tmp_path):
    def talk(solution):
        return {
            "messages": [
                {"role": "user", "content": "จงหาค่า"},
                {"role": "assistant", "content": solution},
            ]
        }

    file = write(
        tmp_path / "math.jsonl",
        [
            talk("2+3=5 \\boxed{5}"),
            talk("ได้ 33/2 \\boxed{\\frac{33}{2}}"),
            talk("ได้ 33 \\boxed{625}"),
            talk("ควรแก้โจทย์เป็น 7 \\boxed{7}"),
            talk("พิสูจน์ได้ \\boxed{จริง}"),
            talk("ไม่มีกล่อง"),
        ],
    )
    items, skipped = catalog.load("thai_math", file)
    assert [item.answer for item in items] == ["5", "\\frac{33}{2}"]
    assert sum(skipped.values()) == 4 and len(skipped) == 4
    talks, again = catalog.load_conversations("thai_math", file)
    assert again == skipped
    assert [turn["role"] for turn in talks[0].messages] == ["user", "assistant"]
    assert catalog.load("thai_math", file, limit=1)[0] == items[:1]


def test_readers():
    assert catalog.numbered("(1) a (2) b") == ["a", "b"]
    assert catalog.numbered("f(1) (1) a (2) b") == ["a", "b"]  # a bracket inside a word is no mark
    assert catalog.numbered("(2) b") == []
    assert catalog.lettered("ข้อใด\n(a) ก\n(b) ข\n\nตอบ (X)") == ["ก", "ข"]
    assert catalog.label("(4) คือคำตอบ (1)") == 3
    assert catalog.label("คิด (a) แล้ว คำตอบคือ (c)") == 2
    assert catalog.label("ไม่มี") is None
    assert catalog.unescaped("a\\nข \\neq") == "a\nข \\neq"


def test_rulings_carry_their_reference_and_the_sections_to_be_cited(tmp_path):
    laws = "[{'law': 'ประมวลรัษฎากร', 'sections': '๖๙ทวิ'}, {'law': 'ก', 'sections': '12 /1'}]"
    case = {"question": " ต้องหักภาษีหรือไม่ ", "reference_answer": "ต้องหัก", "relevant_laws": laws}
    bad = [
        "",
        "[",
        "[1]",
        "{'law': 1}",
        "__import__('os')",
        "[{'law': 'ก'}]",
        "(" * 5000,
        "x" * 200_000,
    ]
    rows = [case, *({**case, "relevant_laws": text} for text in bad)]
    items, skipped = catalog.load("nitibench_tax", write(tmp_path / "tax.jsonl", rows))
    assert skipped == {"no cited section can be read": len(bad)}
    assert items[0].answer == "ต้องหัก" and items[0].messages[0]["content"] == "ต้องหักภาษีหรือไม่"
    assert items[0].checks == [
        {"type": "cites", "law_name": "ประมวลรัษฎากร", "section_num": "69 ทวิ"},
        {"type": "cites", "law_name": "ก", "section_num": "12/1"},
    ]
    columns = as_prompt(items[0]).columns
    assert columns["checks"] == items[0].checks and columns["answer"] == "ต้องหัก"


def test_instructions_carry_their_checks(tmp_path):
    row = {
        "key": 7,
        "prompt": "no commas",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    }
    rows = [row, row | {"kwargs": []}, row | {"instruction_id_list": [], "kwargs": []}]
    items, skipped = catalog.load("ifeval", write(tmp_path / "if.jsonl", rows))
    assert [each["type"] for each in items[0].checks] == ["punctuation:no_comma"]
    assert skipped == {"a column is missing or of another kind": 1, "no check": 1}
    check = task_for("constraint").check
    assert [check(items[0], text).score for text in ("a b", "a, b")] == [1.0, 0.0]


def test_every_entry_reads_and_compiles():
    assert {"openthai_eval", "xcopa_th", "thai_exam", "thai_math", "kobest_copa"} <= set(
        catalog.names()
    )
    for name in catalog.names():
        assert catalog.entry(name).licence
        catalog._compiled(name)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'xcopa_th'"):
        catalog.entry("xcopa-th")
    with pytest.raises(DataError, match="files of 'xcopa_th' are not there"):
        catalog.load("xcopa_th", tmp_path)
    with pytest.raises(RecipeError, match="no reply to imitate"):
        catalog.load_conversations("xcopa_th", tmp_path)
    broken = tmp_path / "cut.jsonl.gz"
    broken.write_bytes(gzip.compress(b'{"a": 1}\n' * 100)[:-20])
    with pytest.raises(DataError, match="cannot be read to its end"):
        catalog.load("xcopa_th", broken)


@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data (set ENDONYM_SHARED)")
@pytest.mark.parametrize("name", catalog.names())
def test_real_rows_all_become_items_or_reasons(name):
    """The counts are of the published files less the sealed 15 %; a change of reading shows here."""
    items, skipped = catalog.load(name, DATA)
    wanted = {
        "ifeval": (484, 0),
        "thai_ifeval": (252, 0),
        "kobest_copa": (853, 0),
        "mgsm_th": (223, 0),
        "nitibench_tax": (40, 0),
        "openthai_eval": (790, 58),
        "thai_exam": (482, 23),
        "thai_math": (1104, 2400),
        "thai_reasoning_mcq": (3355, 0),
        "xcopa_th": (426, 0),
        "xquad_th": (1001, 0),
    }
    assert (len(items), sum(skipped.values())) == wanted[name]
    assert len({item.id for item in items}) == len(items)
    for item in items[:200]:
        task = task_for(item.kind)
        if item.answer:
            assert task.check(item, task.target(item)).score == 1.0
        else:
            assert isinstance(task.check(item, "a reply").score, float), "every check is known"
    if catalog.entry(name).doc_to_reply:
        talks, _ = catalog.load_conversations(name, DATA, limit=200)
        for talk, item in zip(talks, items):
            assert task_for(item.kind).check(item, talk.messages[-1]["content"]).score == 1.0
