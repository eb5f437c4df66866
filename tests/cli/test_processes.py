"""`endonym run --nproc 2`: the workers are spawned, the artifact is the one that a single process makes."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from endonym.cli import machine
from endonym.core.context import Layout
from endonym.core.errors import RecipeError

RECIPE = """
title = "two processes"

[stages.text]
use = "documents"
sources = [{ builtin = "almanac", language = "en", amount = 300 }]

[stages.words]
use = "tokenizer"
text = ["@text"]
vocab_size = 300

[stages.model]
use = "pretrain"
text = { en = "@text" }
tokenizer = "@words"
steps = 20
learning_rate = 1e-2
rows_per_step = 4
row_length = 64
precision = "float32"
architecture = { hidden_size = 16, intermediate_size = 24, num_hidden_layers = 1, num_attention_heads = 2 }
"""


def run(folder, store, *options):
    (folder / "recipe.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "endonym.cli", "run", str(folder / "recipe.toml"), "--json"]
    command += ["--store", str(store), "--threads", "1", "--device", "cpu", "-q", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    return done


def test_a_recipe_with_two_processes_gives_what_one_gives(tmp_path):
    found = {}
    for options in ([], ["--nproc", "2"]):
        store = tmp_path / f"store-{len(options)}"
        done = run(tmp_path, store, *options)
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
        [model] = (store / "artifacts").glob("pretrain-*")
        log = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
        assert not list((store / "making").iterdir()), "the workers' scratch goes with the rest"
        found[len(options)] = log, load_file(model / "model.safetensors"), model.name, done.stderr
    (one, weights, name, _), (two, others, same_name, said) = found[0], found[2]
    assert name == same_name, "how many processes there are is no part of the address"
    assert len(two) == 20 and weights.keys() == others.keys()
    assert [each["loss"] for each in two] == pytest.approx([each["loss"] for each in one], rel=1e-6)
    assert all(others[key].shape == weights[key].shape for key in weights)
    assert said == "", "nothing but errors with --quiet, from any process"


def test_options_that_mean_nothing_are_refused():
    for options in ((0, 1, None), (2, 2, None), (None, 1, ["timeout_min=1"])):
        with pytest.raises(RecipeError):
            machine.processes(*options)
    assert machine.processes(None, 1, None) is None and machine.processes(8, 2, ["a=b"]) == 16
    with pytest.raises(RecipeError, match="KEY=VALUE"):
        machine.slurm_settings(["partition"], 1)
    settings = machine.slurm_settings(["timeout_min=60", "slurm_partition=gpu"], 2)
    assert settings == {"nodes": 2, "timeout_min": 60, "slurm_partition": "gpu"}
    assert machine.slurm_settings(None, 1) is None


def test_a_layout_by_names():
    assert machine.layout("replicate=2,expert=4") == Layout(replicate=2, expert=4)
    assert machine.layout(None) == Layout()
    for text, said in (("shards=2", "shard"), ("shard=none", "shard=N"), ("shard=0", "shard=N")):
        with pytest.raises(RecipeError, match=said):
            machine.layout(text)


def test_compile_has_three_ways():
    assert machine.compile_mode("auto") == "auto"
    with pytest.raises(RecipeError, match="never, auto, always"):
        machine.compile_mode("sometimes")
