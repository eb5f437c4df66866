"""The curriculum claims: their addresses, and every stage of the tiny scale at a few steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from endonym.core import recipe as recipes
from endonym.core.plan import plan
from endonym.core.store import Store
from endonym.stages.table import stage

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "claims" / "curriculum.toml"
GOLDEN = Path(__file__).with_name("golden_curriculum.json")

SHARES = [f"share_{share}_${{seed}}" for share in (0, 27, 50, 100)]
CHOSEN = [f"{way}_${{seed}}" for way in ("random_35", "best_50", "best_35")]
SMALL = [
    "vars.seeds=[0]",
    *(
        f"{name}.sources=[{{builtin='almanac',language='{language}',split='{split}',amount={amount},"
        f"tasks={tasks}}}]"
        for name, language, split, amount, tasks in (
            ("text", "th", "train", 80, "['numbers','months']"),
            ("replay", "en", "train", 80, "['numbers','months']"),
            ("sentences", "en", "train", 40, "['weekdays']"),
            ("held_out", "th", "test", 4, "['numbers','months']"),
            ("held_out_replay", "en", "test", 4, "['numbers','months']"),
            ("held_out_sentences", "en", "test", 4, "['weekdays']"),
            ("wanted", "th", "train", 20, "['months']"),
            ("held_out_wanted", "th", "test", 4, "['months']"),
            ("pool", "th", "train", 60, "['numbers','months']"),
            ("held_out_pool", "th", "test", 4, "['numbers','months']"),
        )
    ),
    "near.amount=30",
    "far.amount=30",
    "words.vocab_size=500",
    "base_${seed}.phases=[{steps=1,mixture={needles=1}},{steps=1,mixture={books=1,sentences=1}}]",
    *(f"{name}.steps=1" for name in (*SHARES, "all_${seed}")),
    *(f"{name}_${{seed}}.steps=1" for name in ("long", "rehearsed", "gated")),
    *(f"{name}.phases=[{{steps=1,thresholds={{similarity={{top=0.4}}}}}}]" for name in CHOSEN),
    "gated_${seed}.gates=[{figure='needles/needle_min',at_least=0.9,action='extend',extend_steps=1}]",
]


def test_addresses_are_the_reviewed_ones(tmp_path):
    """ENDONYM_WRITE_GOLDEN=1 pytest tests/recipes accepts a change; say in the commit why."""
    steps = plan(recipes.load(RECIPE, "tiny"), Store(tmp_path), stage)
    found = {"tiny": {name: one.address for name, one in steps.items()}}
    if os.environ.get("ENDONYM_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_rows_of_one_seed_begin_alike_and_differ_in_one_thing():
    nodes = recipes.load(RECIPE, "tiny").nodes
    for number in (0, 1):
        shares = [nodes[f"share_{share}_{number}"].settings for share in (0, 27, 50, 100)]
        assert all(one | {"mixture": 0} == shares[0] | {"mixture": 0} for one in shares)
        ways = ("random_35", "best_50", "best_35", "phased")
        chosen = [nodes[f"{way}_{number}"].settings for way in ways]
        assert all(one | {"phases": 0} == chosen[0] | {"phases": 0} for one in chosen)
        steps = [sum(phase["steps"] for phase in one["phases"]) for one in chosen]
        assert {*steps, nodes[f"all_{number}"].settings["steps"]} == {steps[0]}
        long, rehearsed = nodes[f"long_{number}"].settings, nodes[f"rehearsed_{number}"].settings
        for name in ("steps", "rows_per_step", "row_length", "learning_rate", "model", "seed"):
            assert long[name] == rehearsed[name]


def test_the_claims_run_and_show_every_board(tmp_path):
    sets = [word for setting in SMALL for word in ("--set", setting)]
    words = ["run", str(RECIPE), "--scale", "tiny", "--store", str(tmp_path), "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "endonym.cli", *words, "--offline", "--json", *sets],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    shown = [told["scoreboard"], *told["boards"]]
    labels = [[row["label"] for row in board["rows"]] for board in shown]
    assert labels == [
        ["before", "0 % new", "27 % new", "50 % new", "100 % new"],
        ["stretched", "long", "rehearsed", "gated"],
        ["all", "random_35", "best_50", "best_35", "phased"],
    ]
    for board in shown:
        for row in board["rows"]:
            assert set(row["figures"]) == {column["key"] for column in board["columns"]}
    figures = {name: each["figures"] for name, each in told["stages"].items()}
    assert set(figures["share_27_0"]["probes"]) == {"validation/bpb_th", "validation/bpb_en"}
    assert figures["gated_0"]["steps"] == 2 and not any(figures["gated_0"]["gates"].values())
    assert figures["phased_0"]["kept"]["best half"]["th"]["kept"] > 0
    asked = figures["rehearsed_0"]["mixture"]
    assert asked["sentences"]["asked"] == pytest.approx(0.3)
