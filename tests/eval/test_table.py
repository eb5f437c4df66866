"""The scoreboard: there and back, best values, a table that a terminal can show, no torch."""

import json
import subprocess
import sys

import pytest
from rich.console import Console

from endonym.core.errors import DataError
from endonym.eval.table import Column, Figure, Row, Scoreboard, shown

BOARD = Scoreboard(
    columns=[
        Column("th_bpb", "Thai", "lower", "bits/byte"),
        Column("th_acc", "Thai tasks", "higher", "%"),
    ],
    rows=[
        Row("base", {"th_bpb": Figure(2.25, 2.1, 2.4, 80), "th_acc": Figure(0.1, 0.05, 0.2, 120)}),
        Row("+ CPT", {"th_bpb": Figure(0.0104)}),
    ],
)


def rendered(board, width=100):
    console = Console(width=width, record=True, force_terminal=False)
    with console.capture() as text:
        console.print(board.table("figures"))
    return text.get()


def test_there_and_back_through_json():
    assert Scoreboard.from_dict(json.loads(json.dumps(BOARD.to_dict()))) == BOARD


def test_the_table_shows_values_intervals_and_what_is_not_there():
    text = rendered(BOARD)
    assert "2.25" in text and "±0.150" in text and "0.010" in text
    assert "10.0" in text and "±7.5" in text and "↓ bits / byte" in text and "↑ %" in text
    assert any(line.split()[-1:] == ["–"] for line in text.splitlines() if "+ CPT" in line)


def test_the_best_follows_the_column():
    assert BOARD.best("th_bpb") == 0.0104
    assert BOARD.best("th_acc") is None  # the only one
    alike = [Row(label, {"th_bpb": Figure(0.0)}) for label in "ab"]
    assert Scoreboard(BOARD.columns, alike).best("th_bpb") is None
    styles = [cell.style for cell in BOARD.table().columns[1]._cells]
    assert styles == ["", "bold"]


def test_values_as_readers_want_them():
    assert [shown(v, "") for v in (0, 0.01044, 1.5, 123.4)] == ["0.00", "0.010", "1.50", "123"]
    assert shown(0.12345, "%") == "12.3"


def test_what_is_no_scoreboard_is_refused():
    for value in ({}, {"columns": [{"key": "a"}], "rows": []}, {"columns": [], "rows": [3]}):
        with pytest.raises(DataError, match="no scoreboard"):
            Scoreboard.from_dict(value)
    with pytest.raises(DataError, match="without a column"):
        Scoreboard.from_dict(
            {"columns": [], "rows": [{"label": "base", "figures": {"x": {"value": 1}}}]}
        )


def test_the_scoreboard_does_not_import_torch():
    code = (
        "import sys, endonym.eval.table, endonym.eval.intervals; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
