"""The run report: one HTML page out of what a run recorded.

The page is for the person who paid for the run and for whoever they show it to. It holds no script
and fetches nothing: its charts are SVG drawn here (altair makes the Vega-Lite, vl-convert the SVG),
its text stays text, so the reader's browser shapes Thai or Korean with the reader's own fonts. Over
an inlined Vega bundle this saves 0.9 MB and 2 s a page, and lets the page forbid all scripts, so
that a sample answer cannot run even if an escape were missed.

The scoreboard, the answers and the lineage each say what they lack: a part that a run does not have
is one sentence on the page, never a gap.
"""

import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

from endonym.core import charts
from endonym.core.artifact import write_atomic
from endonym.core.errors import DataError
from endonym.core.lineage import folded, lineage

MAX_POINTS = 400  # of one loss curve; more cannot be told apart at the width of a page


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
            bytes: int             licences: [str] }
        scoreboard: {
            columns: [{key, title, better: "higher" | "lower" | None, unit}]
            rows: [{label, figures: {key: {value, low, high, n}}}]     low..high: 95 % interval
            title: str
            notes: [str] }         values are shown as given, in the column's unit
        boards: further scoreboards, shown below the first
        comparisons: list of {title, lines: [{label, metrics: [paths]}]}: loss curves in one chart, a
            line the mean of its runs
        samples: list of {prompt, language, expected,
            replies: [{label, text, ok: True | False | None (not judged), reason}]}
        splits: [str], sentences on how data were kept apart
        made_from: [str], what the result was made of; left out: every stage without inputs
        data: list of {source, language, rows, licence, quarantined, dropped}
        costs: {"seconds", "tokens", "flops", any other: number}
        chat: str, the command

    A line of metrics.jsonl is {"step", "loss", "grad_norm", "learning_rate", "tokens"}; where a
    step stands twice (a resumed run) the later line counts.

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
        "duration": duration,
        "count": count,
        "bytes": size,
        "figure": figure,
        "language_names": language_names,
        "pretty": _pretty,
        "cost": _cost,
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
        comparisons=[_comparison(one) for one in run.get("comparisons") or []],
        curves=[_curve(stage) for stage in run["stages"] if stage.get("metrics")],
        longest=longest or 1.0,
    )


# Numbers and names as a reader says them


def duration(seconds: float | None) -> str:
    """Seconds as 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if not _is_number(seconds):
        return NOT_RECORDED
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for big, small, name, less in ((86400, 3600, "d", "h"), (3600, 60, "h", "min")):
        if whole >= big:
            return f"{whole // big} {name} {whole % big // small} {less}"
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def count(value: float | None) -> str:
    """A count as 12,345 or 12.3 million or 1.2 × 10¹⁷."""
    if not _is_number(value):
        return NOT_RECORDED
    for limit, name in ((1e9, "billion"), (1e6, "million")):
        if limit <= abs(value) < 1e12:
            return f"{value / limit:.3g} {name}"
    if abs(value) >= 1e12:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return f"{value:,.0f}"


def size(num_bytes: float | None) -> str:
    """Bytes as 12 kB, 3.4 MB (powers of ten, as disks are sold)."""
    if not _is_number(num_bytes):
        return NOT_RECORDED
    for limit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.3g} {name}"
    return f"{num_bytes:.0f} bytes"


def figure(value: object) -> str:
    """A scalar to four significant digits; whole numbers with separators; anything else as text."""
    if not _is_number(value):
        return str(value)
    if isinstance(value, int) or value == int(value):
        return count(value)
    return f"{value:.4g}"


def language_names(code: str | None) -> tuple[str, str]:
    """("Thai", "ไทย") for th: in English and the people's own word, "" where both are one or unknown."""
    if not code:
        return "", ""
    from babel import Locale, UnknownLocaleError

    try:
        locale = Locale.parse(code, sep="-" if "-" in code else "_")
    except (UnknownLocaleError, ValueError):
        return code, ""
    english, own = locale.get_display_name("en") or code, locale.get_display_name() or ""
    return english, "" if own == english else own


def _is_number(value: object) -> bool:
    """A finite number; what the run left out reaches the template as jinja2's Undefined."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


NOT_RECORDED = "not recorded"
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def _pretty(value: object) -> str:
    """A setting as JSON, in its own script; small things on one line."""
    flat = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    if len(flat) <= 72:
        return flat
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str, indent=2)


def _cost(value: object, key: str) -> str:
    known = {"seconds": duration, "tokens": count, "flops": count, "bytes": size}
    return known.get(key, figure)(value)


# The scoreboard


def _scores(board: dict[str, Any]) -> dict[str, Any]:
    """Columns with their chart, rows with their cells as text."""
    columns, rows = board["columns"], board["rows"]
    shown, cells = [], {row["label"]: [] for row in rows}
    for column in columns:
        figures = [(row.get("figures") or {}).get(column["key"]) or {} for row in rows]
        places = _decimals(figures)
        for row, cell in zip(rows, figures):
            cells[row["label"]].append(_cell(cell, figures[0], column.get("better"), places))
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


# Training curves


def _curve(stage: dict[str, Any]) -> dict[str, Any]:
    """A training stage's loss, with the band of what each thinned point stands for."""
    name, steps, notes = stage["name"], *_read_metrics(Path(stage["metrics"]))
    if not steps:
        return {"name": name, "label": stage.get("label"), "notes": notes or ["no step recorded"]}
    points, per_point = thin(steps)
    if per_point > 1:
        notes.append(f"each point is the mean of {per_point} steps, the band their range")
    has_norms = any("grad_norm" in point for point in points)
    rates = [step["learning_rate"] for step in steps if step.get("learning_rate") is not None]
    tokens = steps[-1].get("tokens")
    said = f"{count(steps[-1]['step'])} steps"
    said += f", {count(tokens)} tokens" if tokens else ""
    said += f"; loss from {points[0]['loss']:.3f} to {points[-1]['loss']:.3f}"
    said += f"; highest learning rate {max(rates):.3g}" if rates else ""
    return {
        "name": name,
        "label": stage.get("label"),
        "said": said,
        "notes": notes,
        "svg": charts.svg(charts.loss_curve(has_norms), points),
    }


def _comparison(one: dict[str, Any]) -> dict[str, Any]:
    """Loss curves of several lines in one chart; a line of several runs is their mean and range."""
    values, ends = [], []
    for line in one["lines"]:
        first = len(values)
        runs = [
            thin(steps, 120)[0]
            for path in line["metrics"]
            if (steps := _read_metrics(Path(path))[0])
        ]
        for points in zip(*runs):
            losses = [point["loss"] for point in points]
            values.append(
                {
                    "line": line["label"],
                    "step": points[0]["step"],
                    "loss": round(fmean(losses), 5),
                    "low": min(losses),
                    "high": max(losses),
                }
            )
        if runs:
            ends.append(f"{line['label']} {values[first]['loss']:.2f} to {values[-1]['loss']:.2f}")
    chart = charts.loss_comparison([line["label"] for line in one["lines"]])
    most = max((len(line["metrics"]) for line in one["lines"]), default=1)
    said = f"each line the mean of up to {most} runs, the band their range; " if most > 1 else ""
    return {
        "title": one.get("title") or "Loss",
        "said": said + "loss from its first to its last point: " + ", ".join(ends),
        "svg": charts.svg(chart, values) if values else "",
    }


def _read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Steps in order, and what a reader should know about the lines left out."""
    if not path.is_file():
        return [], ["its metrics.jsonl is no longer there"]
    steps: dict[int, dict[str, Any]] = {}
    num_unreadable = num_infinite = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            step, loss = int(row["step"]), row.get("loss")
        except (ValueError, KeyError, TypeError, AttributeError):
            num_unreadable += bool(line.strip())  # a line torn by a kill
            continue
        if loss is not None and math.isfinite(loss):
            steps[step] = row
        elif loss is not None:
            num_infinite += 1
    notes = [f"steps without a finite loss: {num_infinite}"] if num_infinite else []
    notes += [f"lines that could not be read: {num_unreadable}"] if num_unreadable else []
    return [steps[step] for step in sorted(steps)], notes


def thin(steps: Sequence[dict[str, Any]], most: int = MAX_POINTS) -> tuple[list[dict], int]:
    """At most `most` points, each the mean of as many neighbouring steps, with lowest and highest."""
    per_point = math.ceil(len(steps) / most)
    points = []
    for start in range(0, len(steps), per_point):
        part = steps[start : start + per_point]
        losses = [step["loss"] for step in part]
        norms = [step["grad_norm"] for step in part if step.get("grad_norm") is not None]
        point = {
            "step": part[-1]["step"],
            "loss": round(fmean(losses), 5),
            "low": round(min(losses), 5),
            "high": round(max(losses), 5),
        }
        if norms and math.isfinite(fmean(norms)):
            point["grad_norm"] = round(fmean(norms), 5)
        points.append(point)
    return points, per_point
