"""One stage for each value of a word, and scoreboards that gather such stages by label."""

import json

import pytest

from endonym.core import recipe as recipes
from endonym.core import report
from endonym.core.artifact import Artifact
from endonym.core.errors import RecipeError
from endonym.core.plan import Step
from endonym.core.runner import Done
from endonym.stages import summary

RECIPE = """
[vars]
seeds = [0, 1]
[stages."a_${seed}"]
use = "evaluate"
each = { seed = "${seeds}" }
label = "a"
[stages."b_${way}_${seed}"]
use = "evaluate"
each = { way = ["up", "down"], seed = "${seeds}" }
label = "${way}"
input = "@a_${seed}"
seed = "${seed}"
[report]
rows = ["b_*", "a_0"]
[[report.boards]]
title = "the first"
rows = ["a_*"]
columns = ["x"]
[[report.curves]]
lines = ["b_*"]
"""


def load(tmp_path, text=RECIPE, **more):
    path = tmp_path / "r.toml"
    path.write_text(text)
    return recipes.load(path, **more)


def test_a_stage_for_every_combination(tmp_path):
    nodes = load(tmp_path).nodes
    assert sorted(nodes) == ["a_0", "a_1", "b_down_0", "b_down_1", "b_up_0", "b_up_1"]
    assert nodes["b_down_1"].settings == {"input": "@a_1", "seed": 1}, "a word alone keeps its type"
    assert nodes["b_down_1"].label == "down"


def test_each_can_be_set_from_the_command(tmp_path):
    with pytest.raises(RecipeError, match="a_0"):  # the report still names a_0
        load(tmp_path, sets=["vars.seeds=[7]"])
    text = RECIPE.replace('"a_0"', '"a_*"')
    nodes = load(tmp_path, text, sets=["vars.seeds=[7]", "b_${way}_${seed}.seed=9"]).nodes
    assert sorted(nodes) == ["a_7", "b_down_7", "b_up_7"] and nodes["b_up_7"].settings["seed"] == 9


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("a_${seed}", "a", "two stages would be called 'a'"),
        ('["up", "down"]', '"up"', "`each` is a table of lists"),
        ('rows = ["a_*"]', 'rows = ["c_*"]', r"names a stage 'c_\*'"),
        ('lines = ["b_*"]', 'lines = ["c"]', "names a stage 'c'"),
        ("${way}_", "${wey}_", "the word .*wey.* is not defined"),
    ],
)
def test_what_cannot_be(tmp_path, old, new, said):
    with pytest.raises(RecipeError, match=said):
        load(tmp_path, RECIPE.replace(old, new))


def finished(tmp_path, recipe):
    """Stages that are done, x = 10 for seed 0 and 20 for seed 1; the curve falls by the seed."""
    done = {}
    for name, node in recipe.nodes.items():
        folder = tmp_path / name
        folder.mkdir()
        seed = int(name[-1])
        scores = {
            "columns": [{"key": k, "title": k, "better": "lower", "unit": ""} for k in "xy"],
            "figures": {k: {"value": 10 * (seed + 1), "low": 1, "high": 99, "n": 5} for k in "xy"},
            "notes": ["said once"],
            "samples": [],
        }
        (folder / "scores.json").write_text(json.dumps(scores))
        lines = [{"step": s, "loss": 4.0 - s * (1 + seed)} for s in (1, 2)]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        better = "up" in name
        values = {k: [seed, seed + 1 - better, 2 * better] for k in "xy"}
        rows = [{"figure": key, "values": each} for key, each in values.items()]
        (folder / "values.jsonl").write_text("\n".join(map(json.dumps, rows)))
        files = {"scores.json": {}, "metrics.jsonl": {}, "values.jsonl": {}}
        record = {"figures": {}, "files": files}
        step = Step(node, None, None, {}, {}, {}, "", None)
        done[name] = Done(step, Artifact(folder, record), True)
    return done


def test_boards_gather_runs_of_one_label(tmp_path):
    recipe = load(tmp_path)
    first, second = summary.scoreboards(recipe, finished(tmp_path, recipe))
    up, _down, single = first.board.rows
    assert [row.label for row in first.board.rows] == ["up", "down", "a"]
    figure = up.figures["x"]
    assert (figure.value, figure.low, figure.high, figure.n) == (15, 10, 20, 2)
    figure = single.figures["x"]
    assert (figure.value, figure.low, figure.high, figure.n) == (10, 1, 99, 5), (
        "one run: its own interval"
    )
    assert first.notes.count("up, down: the mean of 2 runs, from the lowest to the highest.") == 1
    assert first.notes.count("Each row: said once") == 1
    assert second.notes[-1] == "a: the mean of 2 runs, from the lowest to the highest."
    assert second.title == "the first" and [c.key for c in second.board.columns] == ["x"]


def test_rows_are_set_against_one_of_them(tmp_path):
    against = 'title = "ways"\nrows = ["b_*"]\nagainst = "down"'
    recipe = load(tmp_path, RECIPE.replace('rows = ["b_*", "a_0"]', against))
    board, apart, _ = summary.scoreboards(recipe, finished(tmp_path, recipe))
    assert [row.label for row in board.board.rows] == ["up", "down"]
    assert apart.title == "ways: less down" and apart.notes == [
        "Differences on the same items, 95 % intervals over items and seeds; bold: clear of 0."
    ]
    (row,) = apart.board.rows
    figure = row.figures["x"]
    assert row.label == "up" and figure.n == 3
    assert figure.value == pytest.approx((0 - 1 + 2) / 3)
    assert figure.low < 0 < figure.high
    assert [column.difference for column in apart.board.columns] == [True, True]
    with pytest.raises(RecipeError, match="set against 'sideways'"):
        load(
            tmp_path, RECIPE.replace("[[report.boards]]", 'against = "sideways"\n[[report.boards]]')
        )


def test_the_page_shows_further_boards_and_curves_laid_over_one_another(tmp_path):
    recipe = load(tmp_path)
    done = finished(tmp_path, recipe)
    boards = [summary.in_units(one) for one in summary.scoreboards(recipe, done)]
    run = {
        "title": "t",
        "stages": [{"name": "a", "kind": "scores", "inputs": {}}],
        "scoreboard": boards[0],
        "boards": boards[1:],
        "comparisons": [summary._comparison(one, done) for one in recipe.report.curves],
    }
    page = report.render(run)
    assert "<h3>the first</h3>" in page and page.count('<table class="scores">') == 2
    assert "each line the mean of up to 2 runs" in page
    # seed 0 falls from 3 to 2, seed 1 from 2 to 0: the mean from 2.5 to 1
    assert "up 2.50 to 1.00, down 2.50 to 1.00" in page
    assert page.count('stroke="#0b5cad"') and page.count('stroke="#a3540f"'), "a colour a line"
