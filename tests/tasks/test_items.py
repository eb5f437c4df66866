"""Items: the table, the three tasks, and the answer task."""

import pytest

from endonym.core.errors import DataError
from endonym.tasks.base import KINDS, Item, read_items, task_for, write_items

ITEMS = [
    Item("a", "answer", "numbers", "th", [{"role": "user", "content": "48 อ่านว่าอะไร"}], "สี่สิบแปด"),
    Item("b", "choice", "copa", "ko", answer="1", choices=["가", "나"], context="그래서 "),
    Item(
        "c",
        "constraint",
        "form",
        "th",
        answer="ห้าครับ",
        checks=[{"type": "polite", "language": "th"}],
    ),
]


def test_items_come_back_as_they_were(tmp_path):
    assert write_items(tmp_path / "i.parquet", iter(ITEMS)) == 3
    assert read_items(tmp_path / "i.parquet") == ITEMS
    assert write_items(tmp_path / "none.parquet", []) == 0
    assert read_items(tmp_path / "none.parquet") == []


def test_a_damaged_or_foreign_table_is_named(tmp_path):
    from endonym.data.document import Document, write_table

    with pytest.raises(DataError, match="no such table of items"):
        read_items(tmp_path / "i.parquet")
    write_table(tmp_path / "d.parquet", [Document("1", "a")])
    with pytest.raises(DataError, match="no column 'kind'"):
        read_items(tmp_path / "d.parquet")


@pytest.mark.parametrize("item", ITEMS, ids=KINDS)
def test_a_target_passes_its_own_check(item):
    task = task_for(item.kind)
    assert task.check(item, task.target(item)).score == 1.0
    assert task.check(item, "").score == 0.0


def test_the_answer_task_says_what_it_read():
    verdict = task_for("answer").check(ITEMS[0], "คำตอบคือ สี่สิบเก้าค่ะ")
    assert (verdict.score, verdict.reason, verdict.parsed) == (0.0, "different", "สี่สิบเก้า")


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(DataError, match="did you mean 'choice'"):
        task_for("choise")
