"""The run report: one HTML page out of what a run recorded.

The page is for the person who paid for the run and for whoever they show it to. It holds no script
and fetches nothing: its charts are SVG drawn here (altair makes the Vega-Lite, vl-convert the SVG),
its text stays text, so the reader's browser shapes Thai or Korean with the reader's own fonts. Over
an inlined Vega bundle this saves 0.9 MB and 2 s a page, and lets the page forbid all scripts, so
that a sample answer cannot run even if an escape were missed.

The scoreboard, the answers and the lineage each say what they lack: a part that a run does not have
is one sentence on the page, never a gap.
"""

import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from endonym.core import charts, curves, words
from endonym.core.artifact import write_atomic
from endonym.core.errors import DataError
from endonym.core.lineage import folded, lineage


def write_report(path: Path, run: dict[str, Any]) -> None:
    """Writes the page of `run` to `path`, whole or not at all; equal runs give equal bytes.

    `run` is plain data. "title" and "stages" must be there; every other key may be left out.

        title, recipe, scale, command, endonym_version: str
        language: code ("th") or name      created: str, shown as it is
        host: {"cpu", "device", "threads", "python", "torch", ...}: scalars
        stages: list of {
            name: str, unique      use: str (the stage's function)      label: str (for a reader)
            address: str           kind: str (of artifact)
            inputs: {slot: [names of stages]}
            seconds: float, what making it took, also where it was reused
            reused: bool           config: {key: value} (those not at their default)
            figures: {key: scalar} metrics: path of metrics.jsonl, or None
            mixture: {source: {asked, share, tokens, epochs}}, what a training stage drew
            rollouts: path of rollouts.jsonl, answers of a reinforcement run, or None
            bytes: int             licences: [str] }
        scoreboard: {
            columns: [{key, title, better: "higher" | "lower" | None, unit}]
            rows: [{label, figures: {key: {value, low, high, n}}}]     low..high: 95 % interval
            title: str
            notes: [str] }         values are shown as given, in the column's unit
        boards: further scoreboards, shown below the first
        comparisons: list of {title, lines: [{label, metrics: [paths]}]}: loss curves in one chart, a
            line the mean of its runs
        needles: list of {label, cells: [{length, depth, found}]}: a grid for each label
        samples: list of {prompt, language, expected,
            replies: [{label, text, ok: True | False | None (not judged), reason}]}
        splits: [str], sentences on how data were kept apart
        made_from: [str], what the result was made of; left out: every stage without inputs
        data: list of {source, language, rows, licence, quarantined, dropped}
        costs: {"seconds", "tokens", "flops", any other: number}
        chat: str, the command

    A line of metrics.jsonl is {"step", "loss", "grad_norm", "learning_rate", "tokens"}, or {"step",
    "probe": {name: figure}}; where a step stands twice (a resumed run) the later line counts.

    Raises DataError if title or stages are missing, a stage's input is no stage, or inputs go in a
    circle.
    """
    write_atomic(Path(path), render(run).encode())


def render(run: dict[str, Any]) -> str:
    """The page itself; see write_report for `run`."""
    import jinja2

    for key in ("title", "stages"):
        if not run.get(key):
            raise DataError(
                f"the run has no {key!r}", where="write_report: run", got=f"keys {sorted(run)}"
            )
    # Autoescape is on whatever the template is called: every value is text. The one exception is
    # Markup, which only charts.svg makes, out of a chart whose own texts vl-convert has escaped.
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.ChainableUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "duration": words.duration,
        "count": words.count,
        "bytes": words.size,
        "figure": words.figure,
        "language_names": words.language_names,
        "pretty": words.pretty,
        "cost": words.cost,
    }
    source = resources.files("endonym.core").joinpath("report.html.j2").read_text(encoding="utf-8")
    longest = max(stage.get("seconds") or 0 for stage in run["stages"])
    return environment.from_string(source).render(
        run=run,
        palette=charts.PALETTE,
        kind_colours=charts.KIND_COLOURS,
        lineage=lineage(folded(run["stages"])),
        boards=[
            _scores(board)
            for board in (run.get("scoreboard") or {}, *(run.get("boards") or []))
            if board.get("columns") and board.get("rows")
        ],
        comparisons=[curves.comparison(one) for one in run.get("comparisons") or []],
        curves=[curves.curve(stage) for stage in run["stages"] if stage.get("metrics")],
        grids=[curves.grid(one) for one in run.get("needles") or []],
        longest=longest or 1.0,
    )


# The scoreboard


def _scores(board: dict[str, Any]) -> dict[str, Any]:
    """Columns with their chart, rows with their cells as text."""
    columns, rows = board["columns"], board["rows"]
    shown, cells = [], {row["label"]: [] for row in rows}
    for column in columns:
        figures = [(row.get("figures") or {}).get(column["key"]) or {} for row in rows]
        places = _decimals(figures)
        for row, cell in zip(rows, figures):
            zero = {"value": 0.0, "low": 0.0, "high": 0.0}
            first = zero if column.get("difference") else figures[0]
            cells[row["label"]].append(_cell(cell, first, column.get("better"), places))
        known = [
            {"row": row["label"], **{key: cell.get(key) for key in ("value", "low", "high")}}
            for row, cell in zip(rows, figures)
            if cell.get("value") is not None
        ]
        said = "; ".join(
            f"{row['label']}: {cell['text']}"
            for row, cell in zip(rows, (cells[row["label"]][-1] for row in rows))
        )
        shown.append({**column, "svg": charts.dots(known, rows) if known else "", "said": said})
    return {
        "title": board.get("title") or "",
        "columns": shown,
        "rows": [(row["label"], cells[row["label"]]) for row in rows],
        "has_intervals": any(cell.get("interval") for row in cells.values() for cell in row),
        "notes": board.get("notes") or [],
    }


def _decimals(figures: Sequence[dict[str, Any]]) -> int:
    """Decimals that a column deserves: the narrowest interval shown to two digits."""
    widths = [c["high"] - c["low"] for c in figures if _has_interval(c) and c["high"] > c["low"]]
    values = [abs(c["value"]) for c in figures if c.get("value")]
    if widths:
        wanted = 1 - math.floor(math.log10(min(widths)))
    else:  # three digits of the largest value: nothing better is known
        wanted = 2 - math.floor(math.log10(max(values))) if values else 0
    return min(max(wanted, 0), 4)


def _has_interval(cell: dict[str, Any]) -> bool:
    return cell.get("low") is not None and cell.get("high") is not None


def _cell(cell: dict[str, Any], first: dict[str, Any], better: str | None, places: int) -> dict:
    """Text of one figure, and whether its interval lies clear of the first row's."""
    if cell.get("value") is None:
        return {"value": "", "text": "not measured"}
    value = f"{cell['value']:,.{places}f}"
    shown = {"value": value, "n": cell.get("n"), "text": value}
    if not _has_interval(cell):
        return shown
    shown["interval"] = f"{cell['low']:,.{places}f} to {cell['high']:,.{places}f}"
    shown["text"] += f" ({shown['interval']})"
    if better and cell is not first and _has_interval(first):
        above, below = cell["low"] > first["high"], cell["high"] < first["low"]
        if above or below:
            shown["verdict"] = "better" if above == (better == "higher") else "worse"
    return shown
