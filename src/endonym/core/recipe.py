"""A recipe: the names of a run and how each is made from the others, at one of several scales.

    title = "..."
    [vars]                     words used as ${word} below
    [stages.NAME]
    use   = "pretrain"         which stage (stages/table.py)
    label = "+CPT"             how a reader calls it (optional)
    model = "@base"            a slot of the stage: a reference, a list of them, or a table of them
    steps = 700                everything else: the stage's settings
    [stages."cpt_${seed}"]     one stage for each value of a word (each combination, of several words)
    each = { seed = [0, 1, 2] }
    [report]                   what the scoreboard shows
    [scale.tiny]               the same tables again: they are laid over the ones above

A scale's stage whose `use` differs from the recipe's replaces it whole; otherwise its keys are laid
over the recipe's, except that a table of references replaces the one below. `drop = ["NAME"]` in a
scale removes stages. A recipe says nothing of machines.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from itertools import product
from pathlib import Path
from typing import Any

from endonym.core.config import Config, nearest
from endonym.core.errors import RecipeError

FAMILY = "\0family"  # no key that a TOML file could hold by accident
TOP_KEYS = ("title", "name", "vars", "stages", "report", "scale", "drop")


class Board(Config):
    """One scoreboard."""

    title: str = ""
    rows: list[str] = []
    """Names of evaluation stages, in order; their labels name the scoreboard's rows. A name with a *
    means every stage that it fits; those with one label (seeds of one thing) are one row: their mean,
    from the lowest to the highest."""
    columns: list[str] = []
    """Keys of the figures to show; empty: all that the rows have."""
    against: str = ""
    """A row's label: below the board stand the other rows' differences to it, item by item and seed
    by seed (eval/paired.py)."""


class Curves(Config):
    """Loss curves laid over one another."""

    title: str = ""
    lines: list[str] = []
    """Names of training stages, patterns as above; a line is the mean of the runs of one label."""


class ReportConfig(Board):
    """What the end of a run shows: a scoreboard, and further ones below it."""

    boards: list[Board] = []
    curves: list[Curves] = []
    chat: str = ""
    """The model stage that the reader is invited to chat with."""

    def named(self) -> list[str]:
        """Every name or pattern of a stage in it."""
        boards = [name for board in (self, *self.boards) for name in board.rows]
        lines = [name for curves in self.curves for name in curves.lines]
        return [*boards, *lines, *([self.chat] if self.chat else [])]


@dataclass(frozen=True)
class Node:
    """One named stage of a recipe, references still by name."""

    name: str
    use: str
    label: str
    settings: dict[str, Any]
    where: str
    family: str = ""
    """The name that it was written under, with the words of `each` in it; "" where it stands alone."""


@dataclass(frozen=True)
class Recipe:
    """A recipe at one scale, references checked, in an order in which it can be run."""

    name: str
    """The file's, or what the recipe says where another file of that name writes to the same store."""
    scale: str
    title: str
    words: dict[str, Any]
    nodes: dict[str, Node]
    report: ReportConfig
    path: Path
    run: str
    """The name of its runs: the recipe's and the scale's, unless told otherwise."""

    def needed_for(self, target: str | None) -> list[Node]:
        """The nodes that `target` needs, itself included (all, if None), in order."""
        if target is None:
            return list(self.nodes.values())
        if target not in self.nodes:
            raise RecipeError(
                f"the recipe has no stage {target!r}",
                where=self.path,
                do=nearest(target, list(self.nodes)),
            )
        wanted, queue = {target}, [target]
        while queue:
            for name in references(self.nodes[queue.pop()].settings):
                if name not in wanted:
                    wanted.add(name)
                    queue.append(name)
        return [node for name, node in self.nodes.items() if name in wanted]


def load(
    path: Path, scale: str | None = None, sets: list[str] | None = None, run: str | None = None
) -> Recipe:
    """The recipe in a TOML file, a scale laid over it, then each `a.b=value` of `sets`.

    run: the name of its runs; a name apart lets two variants of a recipe stand side by side.
    """
    document = _read(path)
    scales = document.pop("scale", {})
    if scale is not None:
        if scale not in scales:
            raise RecipeError(
                f"the recipe has no scale {scale!r}", where=path, do=nearest(scale, list(scales))
            )
        document = lay_over(document, scales[scale])
    for word in sets or []:
        _set(document, word, path)
    for name in document.pop("drop", []):
        document["stages"].pop(name, None)
    words = document.get("vars", {})
    document["stages"] = _each(document.get("stages", {}), words, path)
    document = _substitute(document, words, str(path))
    nodes = {
        name: _node(name, table, f"{path}: stages.{name}")
        for name, table in document.get("stages", {}).items()
    }
    report = ReportConfig.read(document.get("report", {}), f"{path}: report")
    for name in report.named():
        if not fitting(name, nodes):
            raise RecipeError(
                f"the report names a stage {name!r} that the recipe does not have",
                where=f"{path}: report",
                do=nearest(name, list(nodes)),
            )
    for board in (report, *report.boards):
        labels = list(by_label(board.rows, nodes))
        if board.against and board.against not in labels:
            raise RecipeError(
                f"a board's rows are to be set against {board.against!r}, which is none of them",
                where=f"{path}: report",
                do=nearest(board.against, labels),
            )
    name = document.get("name", path.stem)
    run = run or f"{name}-{scale or 'default'}"
    if run.startswith(".") or Path(run).name != run:
        raise RecipeError(
            "the run's name is no folder's", where=path, wanted="letters, digits, - _ .", got=run
        )
    return Recipe(
        name=name,
        scale=scale or "default",
        title=document.get("title", path.stem),
        words=words,
        nodes=_in_order(nodes, path),
        report=report,
        path=path,
        run=run,
    )


def fitting(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern fits, in their order; a pattern without * fits itself alone."""
    return [name for name in names if name == pattern or fnmatchcase(name, pattern)]


def by_label(patterns: Iterable[str], nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """Label -> the names that the patterns fit under it; a name without * stands alone."""
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        group: dict[str, list[str]] = {}
        for name in fitting(pattern, nodes):
            group.setdefault(nodes[name].label, []).append(name)
        for label, names in group.items():
            found[label if label not in found else f"{label} ({names[0]})"] = names
    return found


def scales_of(path: Path) -> list[str]:
    """The names of a recipe's scales."""
    return list(_read(path).get("scale", {}))


def references(value: Any) -> list[str]:
    """The names that a settings value refers to: every text of the form "@name" in it."""
    if isinstance(value, str):
        return [value[1:]] if value.startswith("@") else []
    if isinstance(value, dict):
        value = list(value.values())
    return [name for item in value for name in references(item)] if isinstance(value, list) else []


def lay_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, table by table; a stage of another `use`, or a table of
    references, replaces the one below."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            replaces = "use" in value and value["use"] != old.get("use")
            replaces |= _only_references(value) and _only_references(old)
            merged[key] = value if replaces else lay_over(old, value)
        else:
            merged[key] = value
    return merged


def _only_references(table: dict[str, Any]) -> bool:
    return all(isinstance(value, str) and value.startswith("@") for value in table.values())


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        raise RecipeError(
            "there is no such recipe",
            where=path,
            got=f"recipes there: {', '.join(there) or 'none'}",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError("the recipe is not valid TOML", where=path, got=str(error)) from None
    for key in document:
        if key not in TOP_KEYS:
            raise RecipeError(f"unknown key {key!r}", where=path, do=nearest(key, list(TOP_KEYS)))
    return document


def _node(name: str, table: Any, where: str) -> Node:
    if not isinstance(table, dict) or not isinstance(table.get("use"), str):
        raise RecipeError('a stage is a table with a key `use = "..."`', where=where, got=table)
    settings = {key: value for key, value in table.items() if key not in ("use", "label", FAMILY)}
    family = table.get(FAMILY, "")
    return Node(name, table["use"], table.get("label", name), settings, where, family)


def _each(stages: dict[str, Any], words: dict[str, Any], path: Path) -> dict[str, Any]:
    """The stages, those with a table `each` written out once for every combination of its values."""
    found: dict[str, Any] = {}
    for name, table in stages.items():
        if not isinstance(table, dict) or "each" not in table:
            found[name] = table
            continue
        where = f"{path}: stages.{name}.each"
        lists = _substitute(table["each"], words, where)
        if not isinstance(lists, dict) or not all(isinstance(v, list) for v in lists.values()):
            raise RecipeError("`each` is a table of lists", where=where, got=lists)
        rest = {key: value for key, value in table.items() if key != "each"}
        for values in product(*lists.values()):
            local = words | dict(zip(lists, values))
            one = _substitute(name, local, where)
            if one in found or one in stages:
                raise RecipeError(
                    f"two stages would be called {one!r}",
                    where=where,
                    do="put every word of `each` into the stage's name, as ${word}",
                )
            found[one] = _substitute(rest, local, where) | {FAMILY: re.sub(r"\$\{\w+\}", "*", name)}
    return found


def _in_order(nodes: dict[str, Node], path: Path) -> dict[str, Node]:
    graph = {}
    for node in nodes.values():
        graph[node.name] = references(node.settings)
        for name in graph[node.name]:
            if name not in nodes:
                raise RecipeError(
                    f"the stage refers to @{name}, which the recipe does not have",
                    where=node.where,
                    do=nearest(name, list(nodes)),
                )
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise RecipeError(
            "the stages need each other in a circle",
            where=path,
            got=circle,
            do="let one of them take another input",
        ) from None
    return {name: nodes[name] for name in order}


def _set(document: dict[str, Any], word: str, path: Path) -> None:
    """Lay one `a.b=value` over the document; a first part that is no top key names a stage."""
    key, separator, text = word.partition("=")
    if not separator or not key:
        raise RecipeError("a setting is written a.b=value", where="--set", got=word)
    parts = key.strip().split(".")
    if parts[0] not in TOP_KEYS:
        parts = ["stages", *parts]
    if parts[0] == "stages" and (len(parts) < 2 or parts[1] not in document.get("stages", {})):
        raise RecipeError(
            "the setting names no stage of the recipe",
            where=f"--set {word}",
            do=nearest(parts[1] if len(parts) > 1 else "", list(document.get("stages", {}))),
        )
    table = document
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(
                f"the setting goes into {part!r}, which is no table", where=f"--set {word}"
            )
    table[parts[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    """A TOML value, or the text itself where it is none (so that words need no quotes)."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _substitute(value: Any, words: dict[str, Any], where: str) -> Any:
    if isinstance(value, dict):
        return {
            _substitute(k, words, where): _substitute(v, words, f"{where}.{k}")
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_substitute(item, words, where) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value

    def word(match: re.Match) -> str:
        if match[1] not in words:
            raise RecipeError(
                f"the word ${{{match[1]}}} is not defined",
                where=where,
                do=nearest(match[1], list(words)),
            )
        return str(words[match[1]])

    whole = re.fullmatch(r"\$\{(\w+)\}", value)
    if whole and whole[1] in words:
        return words[whole[1]]  # keeps its type
    return re.sub(r"\$\{(\w+)\}", word, value)
