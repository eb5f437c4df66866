"""JAI-1's recipe: its addresses, its published figures, and the whole chain at a few steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from endonym.core import recipe as recipes
from endonym.core.plan import plan
from endonym.core.store import Store
from endonym.model.budget import parameters
from endonym.stages.budget import budgets
from endonym.stages.machine import Machine
from endonym.stages.machine import gpu as by_name
from endonym.stages.shapes import Shapes
from endonym.stages.table import stage

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "jai_1.toml"
GOLDEN = Path(__file__).with_name("golden_jai_1.json")

# Everything as in the tiny scale but for amounts, and a share instead of a score of 0.88, which a judge of
# a few steps gives to nothing.
SMALL = [
    "text.sources=[{builtin='almanac',language='th',amount=200},{builtin='handbook',language='th'}]",
    "replay.sources=[{builtin='almanac',language='en',amount=200}]",
    "held_out.sources=[{builtin='almanac',language='th',split='test',amount=6}]",
    "held_out_replay.sources=[{builtin='almanac',language='en',split='test',amount=6}]",
    "exam.sources=[{builtin='almanac',language='th',amount=8}]",
    "exam_replay.sources=[{builtin='almanac',language='en',amount=4}]",
    "translated.sources=[{builtin='almanac',language='th',amount=40,seed=7}]",
    *(
        f"{name}.sources=[{{builtin='almanac',language='th',forms=['{form}'],amount=40}}]"
        for name, form in (
            ("chat", "question"),
            ("instructions", "constraint"),
            ("tasks", "choice"),
            ("culture", "switch"),
        )
    ),
    "pairs.sources=[{builtin='fluency',language='th',amount=40,split='train',held_out=0.2}]",
    "pairs_held_out.sources=[{builtin='fluency',language='th',amount=10,split='test',held_out=0.2}]",
    "base_tokenizer.vocab_size=400",
    "tokenizer.vocab_size=480",
    "base.architecture.hidden_size=32",
    "base.architecture.intermediate_size=48",
    *(f"{name}.steps=2" for name in ("base", "reader", "judge", "sft_1", "sft_2")),
    "judge.row_length=512",
    "pretrained.phases=[{name='P1',steps=2,mixture={replay=1}},"
    "{name='P2',steps=2,mixture={text=0.2,judged=0.07,replay=0.73},"
    "thresholds={fluency={top=0.5,missing='keep'}}},"
    "{name='P3',steps=1,mixture={text=0.27,replay=0.73},row_length=384,rows_per_step=3}]",
    "eval_${step}.max_tokens=4",
    "eval_${step}.sampled_at=0.0",
]


def steps_of(scale, folder, absent=None):
    return plan(recipes.load(RECIPE, scale), Store(folder), stage, absent=absent)


def test_addresses_are_the_reviewed_ones(tmp_path):
    """ENDONYM_WRITE_GOLDEN=1 pytest tests/recipes accepts a change; say in the commit why."""
    found = {"tiny": {name: one.address for name, one in steps_of("tiny", tmp_path).items()}}
    if os.environ.get("ENDONYM_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_the_paper_scale_is_the_published_setting(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    steps = steps_of("paper", tmp_path, absent={})
    deep = Shapes(steps).model("deep")
    assert (deep.num_hidden_layers, deep.vocab_size, deep.rope_theta) == (64, 64_000, 1e6)
    assert parameters(deep).total / 1e9 == pytest.approx(22.47, abs=0.01)  # before the experts
    phases = steps["pretrained"].config.phases
    assert sum(phase.tokens for phase in phases) == pytest.approx(1.5e12)
    thai = phases[1].mixture["text"] + phases[1].mixture["judged"]
    assert thai == pytest.approx(0.27) and phases[1].mixture["replay"] == pytest.approx(0.73)
    assert phases[1].thresholds["fluency"].at_least == 0.88
    assert (phases[1].row_length, phases[2].row_length) == (None, 32768)
    one, two = (steps[name].config.mixture for name in ("sft_1", "sft_2"))
    assert sum(one.values()) == pytest.approx(100.0) and sum(two.values()) == pytest.approx(97.69)
    found = budgets(steps, Machine(by_name("H100"), 64, 2.5, rows_per_device=1, checkpointing=True))
    assert found["pretrained"].tokens == pytest.approx(1.5e12, rel=1e-4)
    assert found["pretrained"].fits and found["pretrained"].cost > 0
    assert found["sft_1"].tokens == pytest.approx(610.2e6, rel=1e-3)


def test_every_scale_loads():
    for scale in recipes.scales_of(RECIPE):
        assert recipes.load(RECIPE, scale).report.rows


def test_the_chain_runs_from_the_base_to_the_mean_of_two_fine_tunings(tmp_path):
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
    labels = [row["label"] for row in told["scoreboard"]["rows"]]
    assert labels == ["base", "grown", "deep", "pretrained", "sft_1", "sft_2", "merged"]
    figures = {name: each["figures"] for name, each in told["stages"].items()}
    assert figures["deep"]["layers"] == 6
    assert figures["pretrained"]["steps"] == 5
    assert {"P1/replay", "P2/judged", "P3/text"} <= set(figures["pretrained"]["mixture"])
    assert figures["pretrained"]["kept"]["P2"]["th"]["kept"] > 0
    assert 0 <= figures["judge"]["accuracy"] <= 1
    shares = figures["sft_2"]["mixture"]
    assert shares["instructions"]["asked"] == pytest.approx(32.01 / 96.79)
    assert told["chat"].startswith("endonym chat jai_1-tiny/merged")
