"""The end of a run: its scoreboard, its HTML page, and what to do next."""

import json
import shlex
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import endonym
from endonym.core.artifact import write_json
from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.recipe import Board, Curves, Recipe, by_label, fitting
from endonym.core.runner import Done, run_folder
from endonym.core.store import Store
from endonym.eval.table import Row, Scoreboard


@dataclass(frozen=True)
class Told:
    """What a finished run tells its reader."""

    boards: list["Shown"]
    page: Path
    chat: str
    executed: int
    reused: int
    as_json: dict[str, Any]

    def show(self, console: Console) -> None:
        """On a terminal: the scoreboards, the page, the command to chat."""
        console.note()
        for shown in self.boards:
            console.print(shown.board.table(shown.title or None))
            for note in shown.notes:
                console.note(note, style="dim")
        console.note(f"\n{self.executed} stages executed, {self.reused} reused")
        console.note(f"report  {self.page}")
        if self.chat:
            console.note(f"chat    {self.chat}")


def summarise(
    recipe: Recipe, store: Store, done: dict[str, Done], context: Context, command: list[str]
) -> Told:
    """Writes report.html and scoreboard.json into the run's folder; what to show of them."""
    from endonym.core.report import write_report

    folder = run_folder(recipe, store)
    boards = scoreboards(recipe, done)
    chat = ""
    if recipe.report.chat in done:
        chat = f"{_program()} chat {folder.name}/{recipe.report.chat}"
        if store.root != Path("store"):
            chat += f" --store {shlex.quote(str(store.root))}"
    run = description(recipe, done, boards, chat, command)
    page = folder / "report.html"
    write_report(page, run)
    if boards:
        write_json(folder / "scoreboard.json", boards[0].board.to_dict())
    executed = sum(not one.reused for one in done.values())
    return Told(
        boards=boards,
        page=page,
        chat=chat,
        executed=executed,
        reused=len(done) - executed,
        as_json={
            "recipe": recipe.name,
            "scale": recipe.scale,
            "executed": executed,
            "reused": len(done) - executed,
            "stages": {
                name: {
                    "address": one.artifact.address,
                    "path": str(one.artifact.path),
                    "reused": one.reused,
                    "seconds": one.artifact.record["seconds"],
                    "figures": one.artifact.figures,
                }
                for name, one in done.items()
            },
            "scoreboard": boards[0].board.to_dict() if boards else None,
            "boards": [{"title": one.title, **one.board.to_dict()} for one in boards[1:]],
            "report": str(page),
            "chat": chat or None,
        },
    )


def _program() -> str:
    """How this reader can call the command again: by name, or by the path they called it by."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "endonym" and not shutil.which("endonym") else "endonym"


@dataclass(frozen=True)
class Shown:
    """One scoreboard with its title and what must be said of it."""

    title: str
    board: Scoreboard
    notes: list[str]


def scoreboards(recipe: Recipe, done: dict[str, Done]) -> list[Shown]:
    """The boards of the recipe's report, each with those of its rows that are there."""
    boards = (recipe.report, *recipe.report.boards)
    found = []
    for board in boards:
        shown = _board(board, done)
        found += [shown] if shown else []
        apart = _differences(board, shown, done) if shown and board.against else None
        found += [apart] if apart else []
    return found


def _board(board: Board, done: dict[str, Done]) -> Shown | None:
    rows, told, known, runs = [], {}, {}, {}
    nodes = {name: one.step.node for name, one in done.items()}
    for label, names in by_label(board.rows, nodes).items():
        scores = [_json(done[name].artifact, "scores.json") for name in names]
        known |= {column["key"]: column for one in scores for column in one["columns"]}
        runs.setdefault(len(names), []).append(label)
        rows.append((label, [one["figures"] for one in scores]))
        for note in dict.fromkeys(note for one in scores for note in one["notes"]):
            told.setdefault(note, []).append(label)
    if not rows:
        return None
    for number, labels in runs.items():
        if number > 1:
            told[f"the mean of {number} runs, from the lowest to the highest."] = labels
    notes = [
        f"{'Each row' if 1 < len(labels) == len(rows) else ', '.join(labels)}: {note}"
        for note, labels in told.items()
    ]
    keys = [key for key in board.columns or known if key in known]
    plain = [
        {"label": label, "figures": {key: _mean(key, runs) for key in keys if key in runs[0]}}
        for label, runs in rows
    ]
    columns = [known[key] for key in keys]
    made = Scoreboard.from_dict({"columns": columns, "rows": plain})
    return Shown(board.title, made, notes)


def _differences(board: Board, shown: Shown, done: dict[str, Done]) -> Shown | None:
    """The board's other rows less the row `against`, each figure item by item; None where that row or
    all others were not scored in this run."""
    from endonym.eval.paired import difference

    groups = by_label(board.rows, {name: one.step.node for name, one in done.items()})
    if board.against not in groups or len(groups) < 2:
        return None
    values = {
        label: [_values(done[name].artifact) for name in names] for label, names in groups.items()
    }
    theirs, rows, runs = values[board.against], [], set()
    for label, ours in values.items():
        if label == board.against:
            continue
        keys = [
            column.key
            for column in shown.board.columns
            if all(column.key in run for run in (*ours, *theirs))
        ]
        figures = {
            key: difference([run[key] for run in ours], [run[key] for run in theirs])
            for key in keys
        }
        rows.append(Row(label, figures))
        runs.add(len(ours))
    seeds = "" if runs == {1} else " and seeds"
    columns = [replace(column, difference=True) for column in shown.board.columns]
    title = f"{shown.title}: less {board.against}".removeprefix(": ")
    note = f"Differences on the same items, 95 % intervals over items{seeds}; bold: clear of 0."
    return Shown(title, Scoreboard(columns, rows), [note])


def _values(artifact: Any) -> dict[str, list[Any]]:
    """What each item gave, by figure."""
    lines = artifact.file("values.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["figure"]: row["values"] for row in map(json.loads, lines)}


def _mean(key: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The figure of one run as it is; of several their mean, lowest and highest, and their number."""
    if len(runs) == 1:
        return runs[0][key]
    values = [run[key]["value"] for run in runs if key in run]
    return {
        "value": sum(values) / len(values),
        "low": min(values),
        "high": max(values),
        "n": len(values),
    }


def in_units(shown: Shown) -> dict[str, Any]:
    """The scoreboard as plain data with shares in per cent, as their unit says."""
    plain = shown.board.to_dict()
    shares = {column["key"] for column in plain["columns"] if column["unit"] == "%"}
    for row in plain["rows"]:
        for key in shares & row["figures"].keys():
            for part in ("value", "low", "high"):
                if row["figures"][key][part] is not None:
                    row["figures"][key][part] *= 100
    return plain | {"title": shown.title, "notes": shown.notes}


def description(
    recipe: Recipe,
    done: dict[str, Done],
    boards: list[Shown],
    chat: str,
    command: list[str],
) -> dict[str, Any]:
    """The plain dictionary that core/report.py draws."""
    stages = [_stage(one) for one in done.values()]
    newest = max(
        (one.artifact.record for one in done.values()), key=lambda record: record["created"]
    )
    host = newest["environment"]
    trained = [stage for stage in stages if stage["metrics"]]
    return {
        "title": recipe.title,
        "recipe": recipe.path.name,
        "scale": recipe.scale,
        "language": str(recipe.words.get("language", "")),
        "command": shlex.join(["endonym", *command]),
        "created": newest["created"],
        "endonym_version": endonym.__version__,
        "host": {
            "processor": host["processor"],
            "cores": host["cores"],
            "device": host["device"],
            "threads": host["threads"],
            "python": host["python"],
            **host["versions"],
        },
        "stages": stages,
        "scoreboard": in_units(boards[0]) if boards else None,
        "boards": [in_units(one) for one in boards[1:]],
        "comparisons": [_comparison(one, done) for one in recipe.report.curves],
        "needles": _needles(done),
        "samples": _samples(recipe, done),
        "splits": _splits(done),
        "made_from": _made_from(recipe, done),
        "data": _data(done),
        "costs": {
            "seconds": sum(stage["seconds"] for stage in stages),
            "tokens": sum(stage["figures"].get("tokens", 0) for stage in trained),
            "flops": sum(
                stage["figures"].get("tokens", 0) * stage["figures"].get("flops_per_token", 0)
                for stage in trained
            ),
        },
        "chat": chat,
    }


def _stage(one: Done) -> dict[str, Any]:
    record = one.artifact.record
    has_metrics = "metrics.jsonl" in record["files"]
    return {
        "name": one.step.name,
        "use": one.step.stage.name,
        "label": one.step.node.label,
        "family": one.step.node.family,
        "address": one.artifact.address,
        "kind": one.artifact.kind,
        "inputs": {
            slot: list(given.values()) if isinstance(given, dict) else [given]
            for slot, given in one.step.inputs.items()
        },
        "seconds": record["seconds"],
        "reused": one.reused,
        "config": record["config"],
        "figures": {k: v for k, v in record["figures"].items() if isinstance(v, int | float | str)},
        "metrics": str(one.artifact.file("metrics.jsonl")) if has_metrics else None,
        "rollouts": str(one.artifact.file("rollouts.jsonl"))
        if "rollouts.jsonl" in record["files"]
        else None,
        "mixture": record["figures"].get("mixture") or {},
        "bytes": sum(file["bytes"] for file in record["files"].values()),
        "licences": record["licences"],
    }


def _comparison(curves: Curves, done: dict[str, Done]) -> dict[str, Any]:
    nodes = {name: one.step.node for name, one in done.items()}
    lines = [
        {
            "label": label,
            "metrics": [str(done[name].artifact.file("metrics.jsonl")) for name in names],
        }
        for label, names in by_label(curves.lines, nodes).items()
    ]
    return {"title": curves.title, "lines": lines}


def _needles(done: dict[str, Done]) -> list[dict[str, Any]]:
    """The needle grids of the run's evaluations; the runs of one label by the means of their cells."""
    grids: dict[str, list[list[dict[str, Any]]]] = {}
    for one in done.values():
        if one.artifact.kind == "scores" and "scores.json" in one.artifact.record["files"]:
            cells = _json(one.artifact, "scores.json").get("needles")
            if cells:
                grids.setdefault(one.step.node.label, []).append(cells)
    return [
        {
            "label": label,
            "cells": [
                {**runs[0], "found": sum(run["found"] for run in runs) / len(runs)}
                for runs in zip(*several, strict=True)
            ],
        }
        for label, several in grids.items()
    ]


def _samples(recipe: Recipe, done: dict[str, Done]) -> list[dict[str, Any]]:
    """The same questions answered by each row of the scoreboard, side by side."""
    shown: dict[str, dict[str, Any]] = {}
    for name in (name for row in recipe.report.rows for name in fitting(row, done)):
        for sample in _json(done[name].artifact, "scores.json")["samples"]:
            one = shown.setdefault(
                sample["id"],
                {key: sample[key] for key in ("prompt", "language", "expected")} | {"replies": []},
            )
            one["replies"].append({"label": done[name].step.node.label, **sample["reply"]})
    return list(shown.values())


def _made_from(recipe: Recipe, done: dict[str, Done]) -> list[str]:
    """Labels of the stages without inputs that the model to chat with descends from.

    What a stage was only filtered by (`without`) is no source of it.
    """
    queue, seen = [recipe.report.chat], set()
    sources = []
    while queue:
        name = queue.pop(0)
        if name in seen or name not in done:
            continue
        seen.add(name)
        given = {k: v for k, v in done[name].step.inputs.items() if k != "without"}
        parents = [
            ref for v in given.values() for ref in (v.values() if isinstance(v, dict) else [v])
        ]
        queue += parents
        if not parents:
            sources.append(done[name].step.node.label)
    return sources


def _splits(done: dict[str, Done]) -> list[str]:
    sentences = [
        sentence for one in done.values() for sentence in one.artifact.figures.get("splits", [])
    ]
    return list(dict.fromkeys(sentences))


def _data(done: dict[str, Done]) -> list[dict[str, Any]]:
    rows = [
        {"stage": name, **source}
        for name, one in done.items()
        for source in one.artifact.figures.get("sources", [])
    ]
    return [{**row, "source": f"{row.pop('stage')}: {row['source']}"} for row in rows]


def _json(artifact: Any, name: str) -> dict[str, Any]:
    return json.loads(artifact.file(name).read_text(encoding="utf-8"))
