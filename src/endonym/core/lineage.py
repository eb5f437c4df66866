"""Where the stages of a run stand in its picture: columns by depth, arrows from input to output.

The template of the report (report.html.j2) draws what comes out of here; no drawing library is used.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from statistics import fmean
from typing import Any

from endonym.core.config import nearest
from endonym.core.errors import DataError

NODE_WIDTH, NODE_HEIGHT = 122, 58
COLUMN = NODE_WIDTH + 28
NODE_GAP, LINE_GAP = NODE_HEIGHT + 16, 26


MOST = 40
"""Boxes that a reader can still follow; of more stages, those of one family share a box."""


def folded(stages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stages to draw: as they are or, above MOST, one for each family (a recipe's `each`).

    A box of several has their family's name, their number in `members`, their time in all, and every
    input of any of them; it is reused where all of them are. `place` is the first one's place, from 1.
    """
    placed = [{**stage, "place": place} for place, stage in enumerate(stages, 1)]
    if len(stages) <= MOST:
        return placed
    sizes = Counter(stage.get("family") for stage in stages)
    box_of = {
        stage["name"]: family if family and sizes[family] > 1 else stage["name"]
        for stage in stages
        for family in [stage.get("family")]
    }
    boxes: dict[str, list[dict[str, Any]]] = {}
    for stage in placed:
        boxes.setdefault(box_of[stage["name"]], []).append(stage)
    drawn = []
    for name, members in boxes.items():
        given = [
            ref for one in members for refs in (one.get("inputs") or {}).values() for ref in refs
        ]
        inputs = [
            box for box in dict.fromkeys(box_of.get(ref, ref) for ref in given) if box != name
        ]
        one = {**members[0], "name": name, "inputs": {"": inputs}}
        if len(members) > 1:
            one["members"] = len(members)
            one["seconds"] = sum(each.get("seconds") or 0 for each in members)
            one["reused"] = all(each.get("reused") for each in members)
        drawn.append(one)
    try:
        list(TopologicalSorter({one["name"]: one["inputs"][""] for one in drawn}).static_order())
    except CycleError:  # families that need one another by turns cannot share boxes
        return placed
    return drawn


def lineage(stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Where each stage stands and how each arrow runs, in SVG units; left to right by depth.

    A stage stands one column right of its deepest input (the layers of Sugiyama, Tagawa and Toda
    1981). An arrow over more than one column passes through a waypoint in each, so it never crosses
    a box. Rows are ordered by the mean place of the neighbours and then drawn towards them.
    """
    names = [stage["name"] for stage in stages]
    parents: dict[Any, list[Any]] = {stage["name"]: _parents(stage, names) for stage in stages}
    try:
        order = list(TopologicalSorter(parents).static_order())
    except CycleError as error:
        circle = " <- ".join(map(str, error.args[1]))
        raise DataError("the stages' inputs go in a circle", got=circle) from None
    depth = {}
    for name in order:
        depth[name] = 1 + max((depth[parent] for parent in parents[name]), default=-1)

    columns: list[list[Any]] = [[] for _ in range(1 + max(depth.values()))]
    for name in names:
        columns[depth[name]].append(name)
    routes = []  # each arrow as parent, waypoints (tuples), child
    for child in names:
        for parent in parents[child]:
            between = [(parent, child, d) for d in range(depth[parent] + 1, depth[child])]
            for waypoint in between:
                columns[waypoint[2]].append(waypoint)
            routes.append([parent, *between, child])
    heights = _place(columns, routes)

    top = min(heights.values()) - NODE_HEIGHT / 2 - 4
    bottom = max(heights.values()) + NODE_HEIGHT / 2 + 4
    kinds = list(dict.fromkeys(stage.get("kind") or "artifact" for stage in stages))
    nodes = [
        {
            "stage": stage,
            "kind": kinds.index(stage.get("kind") or "artifact"),
            "x": 2 + depth[stage["name"]] * COLUMN,
            "y": round(heights[stage["name"]] - top - NODE_HEIGHT / 2, 1),
        }
        for stage in stages
    ]
    return {
        "nodes": nodes,
        "paths": [_path(route, depth, heights, top) for route in routes],
        "kinds": kinds,
        "width": len(columns) * COLUMN - (COLUMN - NODE_WIDTH) + 4,
        "height": round(bottom - top, 1),
        "node_width": NODE_WIDTH,
        "node_height": NODE_HEIGHT,
    }


def _parents(stage: dict[str, Any], names: list[str]) -> list[str]:
    given = dict.fromkeys(name for slot in (stage.get("inputs") or {}).values() for name in slot)
    for name in given:
        if name not in names:
            raise DataError(
                f"an input of stage {stage['name']!r} is not a stage of this run",
                got=name,
                do=nearest(name, names),
            )
    return list(given)


def _place(columns: list[list[Any]], routes: list[list[Any]]) -> dict[Any, float]:
    """The height of each box and waypoint: near its neighbours, never nearer than the gaps allow."""
    near: dict[Any, list[Any]] = {place: [] for column in columns for place in column}
    for route in routes:
        for left, right in pairwise(route):
            near[left].append(right)
            near[right].append(left)
    heights = {}
    for column in columns:
        heights |= dict(zip(column, _spread(column, [i * NODE_GAP for i in range(len(column))])))

    for sweep in range(24):
        is_forward = sweep % 2 == 0
        for column in columns if is_forward else reversed(columns):
            wanted = {p: fmean([heights[n] for n in near[p]] or [heights[p]]) for p in column}
            if sweep < 12:  # first find an order, then only straighten
                column.sort(key=wanted.__getitem__)
            heights |= dict(zip(column, _spread(column, [wanted[place] for place in column])))
    return heights


def _spread(column: Sequence[Any], wanted: Sequence[float]) -> list[float]:
    """Heights in order, at least a gap apart: the mean of pushing down and of pushing up."""

    def gap(one: Any, other: Any) -> float:
        num_lines = isinstance(one, tuple) + isinstance(other, tuple)
        return (NODE_GAP, (NODE_GAP + LINE_GAP) / 2, LINE_GAP)[num_lines]

    down, up = list(wanted), list(wanted)
    for i in range(1, len(column)):
        down[i] = max(down[i], down[i - 1] + gap(column[i - 1], column[i]))
    for i in reversed(range(len(column) - 1)):
        up[i] = min(up[i], up[i + 1] - gap(column[i], column[i + 1]))
    return [(a + b) / 2 for a, b in zip(down, up)]


def _path(
    route: Iterable[Any], depth: dict[str, int], heights: dict[Any, float], top: float
) -> str:
    """An arrow as SVG path: curves between the columns, straight across each waypoint's column."""
    start, *rest = route
    x, y = 2 + depth[start] * COLUMN + NODE_WIDTH, heights[start] - top
    path = [f"M{x:.0f},{y:.1f}"]
    for place in rest:
        is_waypoint = isinstance(place, tuple)
        end = 2 + (place[2] if is_waypoint else depth[place]) * COLUMN - (0 if is_waypoint else 5)
        middle, height = (x + end) / 2, heights[place] - top
        path.append(f"C{middle:.0f},{y:.1f} {middle:.0f},{height:.1f} {end:.0f},{height:.1f}")
        x, y = end, height
        if is_waypoint:
            x += NODE_WIDTH
            path.append(f"H{x:.0f}")
    return " ".join(path)
