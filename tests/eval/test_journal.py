"""A journal keeps whole batches of the same work, and nothing else."""

from dataclasses import dataclass

import pytest

from endonym.eval.journal import Journal


@dataclass(frozen=True)
class Row:
    name: str
    value: float = 0.0


FIRST, SECOND = [Row("ก", 1.5), Row("b")], [Row("c"), Row("d"), Row("e")]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "in" / "a.jsonl"
    with Journal(path, "one", Row) as journal:
        journal.append(FIRST)
        journal.append(SECOND)
    return path


def kept(path, identity="one"):
    with Journal(path, identity, Row) as journal:
        return journal.rows


def test_rows_come_back_in_order_and_more_follow(path):
    with Journal(path, "one", Row) as journal:
        assert journal.rows == FIRST + SECOND
        journal.append([Row("f")])
    assert kept(path) == [*FIRST, *SECOND, Row("f")]


def test_another_work_begins_anew(path):
    assert kept(path, "two") == []
    assert kept(path, "two") == [] and kept(path) == []


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_end_costs_its_batch(path, cut):
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert kept(path) == FIRST
    path.write_bytes(whole + whole.splitlines(keepends=True)[1][:cut])
    assert kept(path) == FIRST + SECOND
    assert path.read_bytes() == whole, "what was torn is cut off"


def test_a_batch_that_lost_a_row_is_none(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4] + lines[5:]))
    assert kept(path) == FIRST


def test_an_empty_batch_is_a_batch(tmp_path):
    with Journal(tmp_path / "a", "x", Row) as journal:
        journal.append([])
        journal.append(FIRST)
    assert kept(tmp_path / "a", "x") == FIRST
