"""The claims recipes: every scale is a recipe, and the tokenizer claims run through and show their boards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from endonym.core import plan as plans
from endonym.core import recipe as recipes
from endonym.core.store import Store
from endonym.stages.table import stage

FOLDER = Path(__file__).parents[2] / "recipes" / "claims"
DATA = Path(os.environ.get("ENDONYM_SHARED", Path(__file__).parents[3] / "shared")) / "data"
TOKENIZER = FOLDER / "tokenizer.toml"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda p: p.stem)
def test_every_scale_can_be_planned(path, tmp_path):
    for scale in recipes.scales_of(path):
        loaded = recipes.load(path, scale)
        if scale != "tiny" and not DATA.is_dir():
            pytest.skip(f"real data is not here: {DATA}")
        steps = plans.plan(loaded, Store(tmp_path), stage, (DATA,))
        assert steps.keys() == loaded.nodes.keys()


SMALL = [
    "vars.seeds=[0, 1]",
    'vars.inits=["mean", "normal"]',
    "read_words.vocab_size=400",
    "unread_words.vocab_size=400",
    "extended_${base}.vocab_size=520",
    "plain_words.vocab_size=600",
    "superwords_${t}.vocab_size=600",
    "superwords_${t}.each.t=[500]",
    "super_${t}.each.t=[500]",
    *(f"{base}_${{seed}}.steps=2" for base in ("read", "unread")),
    "cpt_${base}_${init}_${seed}.steps=2",
]


def test_the_tokenizer_claims_run_and_show_every_board(tmp_path):
    """Two seeds, two initialisations, two steps each; the texts small."""
    words = [word for each in SMALL for word in ("--set", each)]
    for name in (
        "text",
        "replay",
        "held_out",
        "held_out_replay",
        "taste",
        "third_text",
        "third_held_out",
    ):
        language = {
            "replay": "en",
            "held_out_replay": "en",
            "third_text": "ko",
            "third_held_out": "ko",
        }
        split = "test" if "held_out" in name else "train"
        source = (
            f'[{{ builtin = "almanac", language = "{language.get(name, "th")}", split = "{split}", '
            'tasks = ["numbers", "months"], amount = 60 }]'
        )
        words += ["--set", f"{name}.sources={source}"]
    command = [sys.executable, "-m", "endonym.cli", "run", str(TOKENIZER), "--scale", "tiny"]
    done = subprocess.run(
        [*command, *words, "--store", str(tmp_path), "--threads", "1", "--offline", "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    first, others = told["scoreboard"], told["boards"]
    assert [row["label"] for row in first["rows"]][:2] == ["read: mean", "read: normal"]
    figure = first["rows"][0]["figures"]["bpb_th"]
    assert figure["n"] == 2 and figure["low"] <= figure["value"] <= figure["high"]
    after, _unread, unread_after, paid, superwords = others
    assert [row["label"] for row in after["rows"]] == ["read: mean", "read: normal"]
    assert [row["label"] for row in unread_after["rows"]] == ["unread: mean", "unread: normal"]
    pays = {row["label"]: row["figures"] for row in paid["rows"]}
    assert pays["unread: extended"]["fewer_th"]["value"] > 0.2
    assert pays["unread: extended"]["fewer_en"]["value"] == 0, "English keeps its ids"
    plain, grown = superwords["rows"]
    assert grown["figures"]["vocab_size"]["value"] <= plain["figures"]["vocab_size"]["value"] == 600
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert "The first steps: a base that has read some of the language" in page
