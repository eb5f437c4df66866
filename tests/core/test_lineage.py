"""The picture of the lineage: arrows run to the right and no arrow or box lies on another."""

import re

import pytest

from endonym.core import lineage
from endonym.core.errors import DataError


def stage(name, kind, parents=()):
    return {"name": name, "kind": kind, "inputs": {"input": list(parents)} if parents else {}}


def test_lineage_runs_left_to_right_and_nothing_lies_on_a_box():
    stages = [stage("s0", "a"), stage("s1", "a"), stage("wide", "b", ["s0", "s1"])]
    stages += [stage(f"s{i}", "a", [f"s{i - 1}", f"s{i % 2}"]) for i in range(2, 15)]
    drawn = lineage.lineage(stages)
    at = {node["stage"]["name"]: (node["x"], node["y"]) for node in drawn["nodes"]}
    for each in stages:
        for parent in each["inputs"].get("input", []):
            assert at[parent][0] + lineage.COLUMN <= at[each["name"]][0]
    boxes = list(at.values())
    for i, (x, y) in enumerate(boxes):
        assert 0 <= y <= drawn["height"] - lineage.NODE_HEIGHT
        for other_x, other_y in boxes[:i]:
            assert x != other_x or abs(y - other_y) >= lineage.NODE_HEIGHT
    # Where an arrow runs straight (H) it crosses a column: no box of that column may be there.
    num_crossings = num_passed = 0
    for each in stages:
        for parent in set(each["inputs"].get("input", [])):
            num_passed += (at[each["name"]][0] - at[parent][0]) // lineage.COLUMN - 1
    for path in drawn["paths"]:
        for height, end in re.findall(r",([-\d.]+) H(\d+)", path):
            num_crossings += 1
            for x, y in boxes:
                in_column = x + lineage.NODE_WIDTH == int(end)
                assert not (in_column and y < float(height) < y + lineage.NODE_HEIGHT), path
    assert num_crossings == num_passed > 10


def test_kinds_are_numbered_in_order_of_first_appearance():
    stages = [stage("a", "text"), stage("b", "model", ["a"]), stage("c", "text")]
    drawn = lineage.lineage(stages)
    assert drawn["kinds"] == ["text", "model"]
    assert [node["kind"] for node in drawn["nodes"]] == [0, 1, 0]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([stage("a", "x", ["bse"]), stage("base", "x")], "did you mean 'base'"),
        ([stage("a", "x", ["b"]), stage("b", "x", ["a"])], "circle"),
    ],
)
def test_inputs_that_cannot_be_drawn_are_refused(stages, said):
    with pytest.raises(DataError, match=said):
        lineage.lineage(stages)


def chain(seeds):
    """data -> base_N -> tuned_N for every seed."""
    stages = [{"name": "data", "kind": "documents", "inputs": {}, "seconds": 1}]
    for n in range(seeds):
        base = {"name": f"base_{n}", "family": "base_*", "kind": "model", "seconds": 2}
        tuned = {"name": f"tuned_{n}", "family": "tuned_*", "kind": "model", "seconds": 3}
        stages += [
            {**base, "inputs": {"text": ["data"]}, "reused": n > 0},
            {**tuned, "inputs": {"model": [f"base_{n}"]}, "reused": True},
        ]
    return stages


def test_a_small_run_is_drawn_stage_by_stage():
    drawn = lineage.folded(chain(3))
    assert [one["name"] for one in drawn] == [one["name"] for one in chain(3)]
    assert [one["place"] for one in drawn] == list(range(1, 8))


def test_stages_of_one_family_share_a_box_in_a_large_run():
    alone = {"name": "last_0", "family": "last_*", "inputs": {"model": ["tuned_3"]}}
    more = {"name": "more", "kind": "documents", "inputs": {}}
    data, base, tuned, last, other = lineage.folded([*chain(30), alone, more])
    assert other["name"] == "more" and data["name"] == "data", "stages without a family stand alone"
    assert last["name"] == "last_0" and last["inputs"] == {"": ["tuned_*"]}
    assert (base["name"], base["members"], base["seconds"], base["place"]) == ("base_*", 30, 60, 2)
    assert data["inputs"] == {"": []} and "members" not in data
    assert base["inputs"] == {"": ["data"]} and tuned["inputs"] == {"": ["base_*"]}
    assert not base["reused"] and tuned["reused"], "reused where all of them are"
    assert len(lineage.lineage([data, base, tuned, last])["nodes"]) == 4


def test_families_that_need_one_another_by_turns_are_drawn_apart():
    stages = [{"name": "a_0", "family": "a_*", "inputs": {}}]
    for n in range(30):
        stages.append({"name": f"b_{n}", "family": "b_*", "inputs": {"x": [f"a_{n}"]}})
        stages.append({"name": f"a_{n + 1}", "family": "a_*", "inputs": {"x": [f"b_{n}"]}})
    assert len(lineage.folded(stages)) == len(stages)


def test_a_family_whose_members_follow_one_another_is_one_box_that_does_not_need_itself():
    stages = [{"name": "data", "kind": "documents", "inputs": {}}]
    for n in range(60):
        before = [f"snapshot_{n - 1}"] if n else ["data"]
        stages.append({"name": f"snapshot_{n}", "family": "snapshot_*", "inputs": {"x": before}})
    data, box = lineage.folded(stages)
    assert box["members"] == 60 and box["inputs"] == {"": ["data"]}
    assert len(lineage.lineage([data, box])["paths"]) == 1
