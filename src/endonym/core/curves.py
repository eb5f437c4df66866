"""The parts of the report page that show numbers along a run: losses, probes, needle grids."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from endonym.core import charts
from endonym.core.words import count

REWARD = r"reward|rewards/.*/mean"  # in metrics.jsonl, TRL's names
MAX_REWARDS = 60  # points of a reward curve: batches differ much
MAX_POINTS = 400  # of one loss curve; more cannot be told apart at the width of a page


def curve(stage: dict[str, Any]) -> dict[str, Any]:
    """A training stage's loss, with the band of what each thinned point stands for."""
    name, steps, notes = stage["name"], *read_metrics(Path(stage["metrics"]))
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
        "probes": _probes(Path(stage["metrics"])),
        "rewards": _rewards(Path(stage["metrics"])),
        "rollouts": _rollouts(stage.get("rollouts")),
        "drawn": [
            {"source": source, **row}
            for source, row in (stage.get("mixture") or {}).items()
            if row.get("tokens") or row.get("rows")
        ],
    }


MAX_PROBES = 8  # of one run; the cells of a needle grid would make dozens of charts


def _probes(path: Path) -> dict[str, Any] | None:
    """What the run's probes said on the way, as small charts; None where it had none."""
    values = [
        {"name": name, "step": row["step"], "value": value}
        for row in _lines(path)
        if isinstance(row.get("probe"), dict) and "step" in row
        for name, value in row["probe"].items()
    ]
    names = list(dict.fromkeys(value["name"] for value in values))[:MAX_PROBES]
    if not names:
        return None
    ends = {name: [v["value"] for v in values if v["name"] == name] for name in names}
    said = ", ".join(f"{name} {known[0]:.3g} to {known[-1]:.3g}" for name, known in ends.items())
    return {"said": said, "svg": charts.svg(charts.probe_curves(names), values)}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl that are whole; read_metrics counts those that a kill has torn."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _rewards(path: Path) -> dict[str, Any] | None:
    """What a reinforcement run was paid along the way, in all and by part; None of another run. Steps
    without a loss, in which nothing was learnt from, count as well."""
    # Of a step that stands twice (a resumed run) the later line counts.
    found = {row["step"]: row for row in _lines(path) if "step" in row and "probe" not in row}
    steps = [found[number] for number in sorted(found)]
    names = {name for step in steps for name in step if re.fullmatch(REWARD, name)}
    values, ends = [], []
    for name in sorted(names)[:MAX_PROBES]:  # "reward", the whole, before its parts
        known = [(step["step"], step[name]) for step in steps if step.get(name) is not None]
        told = name.removeprefix("rewards/").removesuffix("/mean")
        points = [
            {"name": told, "step": some[-1][0], "value": round(fmean(v for _, v in some), 4)}
            for some in _batched(known, math.ceil(len(known) / MAX_REWARDS))
        ]
        values += points
        ends.append(f"{told} {points[0]['value']:.3g} to {points[-1]['value']:.3g}")
    if not values:
        return None
    told = list(dict.fromkeys(value["name"] for value in values))
    return {"said": ", ".join(ends), "svg": charts.svg(charts.probe_curves(told), values)}


def _batched(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Neighbours by `size`, the last fewer (itertools.batched is of Python 3.12)."""
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some


def _rollouts(path: str | None) -> list[dict[str, Any]]:
    """The prompts and answers that a reinforcement run set aside for readers (rollouts.jsonl)."""
    if path is None or not Path(path).is_file():
        return []
    found = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        batch = json.loads(line)
        answers = [
            {"text": _said(answer["messages"]), "reward": answer["reward"]}
            for answer in batch["answers"]
        ]
        prompt = _said(batch["prompt"][-1:])
        found.append({"batch": batch["batch"], "prompt": prompt, "answers": answers})
    return found


def _said(messages: list[dict[str, Any]]) -> str:
    """Messages as a reader follows them: calls of tools and what these answered in their place."""
    lines = []
    for message in messages:
        calls = [call["function"] for call in message.get("tool_calls") or []]
        lines += [
            f"→ {call['name']} {json.dumps(call['arguments'], ensure_ascii=False)}"
            for call in calls
        ]
        content = message.get("content")
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        if content:
            lines.append(f"← {text}" if message["role"] == "tool" else text)
    return "\n".join(lines)


def grid(one: dict[str, Any]) -> dict[str, Any]:
    """A needle grid as a chart, and its worst cell in words."""
    cells = [{**cell, "said": f"{100 * cell['found']:.0f}"} for cell in one["cells"]]
    worst = min(cells, key=lambda cell: cell["found"])
    said = f"worst: {worst['said']} % at {count(worst['length'])} tokens, depth {worst['depth']:g}"
    return {"label": one["label"], "said": said, "svg": charts.svg(charts.needle_grid(), cells)}


def comparison(one: dict[str, Any]) -> dict[str, Any]:
    """Loss curves of several lines in one chart; a line of several runs is their mean and range."""
    values, ends = [], []
    for line in one["lines"]:
        first = len(values)
        runs = [
            thin(steps, 120)[0]
            for path in line["metrics"]
            if (steps := read_metrics(Path(path))[0])
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


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
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
