"""Distillation killed and run again, and in two processes: the same answers, the same bytes or figures."""

import os
import random
import shutil
from collections import Counter
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from endonym.core.console import Console
from endonym.core.context import Context
from endonym.engine import backends
from endonym.model import hf
from endonym.rollouts.teacher import Teacher
from endonym.stages.distill import STAGE, DistillConfig
from endonym.train import launch
from eval.tiny import ENGLISH, context, model
from stages.test_distill import artifact, run, start, talk
from train import drill

STEPS = 6
SIZES = {
    "steps": STEPS, "learning_rate": 3e-3, "rows_per_step": 4, "row_length": 64, "lmbda": 0.5,
    "max_completion": 8, "precision": "float32", "cross_entropy": 0.2,
}  # fmt: skip


def given(folder):
    from endonym.data.document import Prompt

    asked = [Prompt(f"p{n}", [{"role": "user", "content": f"say {n}"}], "en") for n in range(5)]
    return {
        "model": start(folder / "model", model()),
        "teacher": start(folder / "teacher", model(1)),
        "data": {
            "chat": talk(folder / "chat", 12, ENGLISH[:20], "yes it is"),
            "asked": artifact(folder / "asked", "prompts.parquet", "prompts", asked),
        },
    }


def drilled(folder, inside: int, outside: int) -> dict[str, int]:
    """Kills in a save and at random, until there were so many; every run must end like one left alone."""
    inputs = given(folder)

    def work(folder):
        out, scratch = folder / "out", folder / "scratch"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        scratch.mkdir(exist_ok=True)
        here = Context(
            scratch=scratch, threads=1, checkpoint_seconds=0.0, console=Console(quiet=True)
        )
        STAGE.run(DistillConfig(**SIZES), here, out, inputs)

    def final(folder):
        last = folder / "scratch" / "checkpoints" / f"step-{STEPS:08d}" / "state.safetensors"
        drawn = sorted((folder / "out" / "rollouts").iterdir())
        assert len(drawn) == STEPS and not list((folder / "out" / "rollouts").glob(".*"))
        files = [
            folder / "out" / "model.safetensors",
            folder / "out" / "metrics.jsonl",
            last,
            *drawn,
        ]
        return {path.name: path.read_bytes() for path in files}

    kind = drill.Kind(work, final, "scratch/checkpoints", 12 * STEPS)
    return drill.kill_drill(folder / "runs", random.Random("distill/1"), kind, inside, outside)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the drill forks")
def test_killed_at_any_moment_it_ends_where_an_undisturbed_run_ends(tmp_path):
    """distill_drill.py FOLDER 20 30 does it 50 times."""
    kills = drilled(tmp_path, 3, 3)
    assert kills["in a save"] >= 3 and kills["at random"] >= 3


def test_what_was_drawn_is_not_drawn_again(tmp_path, monkeypatch):
    """A run that ended between drawing and learning: the file decides, even against the generator."""
    inputs = given(tmp_path)
    settings = {**SIZES, "steps": 2, "lmbda": 1}
    run(tmp_path, inputs, "first", **settings)
    drawn = tmp_path / "first" / "scratch" / "rollouts"
    again = tmp_path / "again" / "scratch"
    again.mkdir(parents=True)
    shutil.copytree(drawn, again / "rollouts")
    monkeypatch.setattr(backends, "generate", lambda *given, **named: 1 / 0)
    (tmp_path / "again" / "out").mkdir()
    here = replace(context(again), threads=1)
    STAGE.run(DistillConfig.read(settings), here, tmp_path / "again" / "out", inputs)
    ours, theirs = (tmp_path / n / "out" / "model.safetensors" for n in ("first", "again"))
    assert ours.read_bytes() == theirs.read_bytes()


DIVIDED = {
    "answers": {"references": "teacher"},
    "beside": {},
    "in turn": {"teacher_prompt_prefix": "Answer in Thai."},
    "spans": {"alignment": "spans"},
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the ranks are forked")
@pytest.mark.parametrize("name", DIVIDED)
def test_two_processes_learn_as_one_does(tmp_path, monkeypatch, name):
    """And each holds half of the teacher, unless it is one."""
    inputs, found, drawn, truly = given(tmp_path), [], [], Teacher.states
    here = tmp_path / "held"

    def held(self, rows):
        parts = [
            getattr(each, "to_local", lambda each=each: each)() for each in self.model.parameters()
        ]
        whole, mine = (sum(p.numel() for p in each) for each in (self.model.parameters(), parts))
        with here.open("a") as out:
            out.write(f"{os.getpid()} {mine / whole}\n")
        return truly(self, rows)

    monkeypatch.setattr(Teacher, "states", held)
    monkeypatch.setattr(launch, "START", "fork")  # saves the imports
    for processes in (1, 2):
        here.unlink(missing_ok=True)
        outcome, out = run(
            tmp_path, inputs, f"by{processes}", {"processes": processes, "rows_per_device": 1},
            **SIZES | {"steps": 3} | DIVIDED[name],
        )  # fmt: skip
        assert hf.load(out).head.shape == model().head.shape
        lines = [line.split() for line in here.read_text().splitlines()]
        passes = Counter(number for number, _ in lines)
        assert len(passes) == processes and len(set(passes.values())) == 1
        for _, share in lines:
            assert float(share) == pytest.approx(1 / processes, abs=0.02)
        found.append(outcome.figures)
        drawn.append(
            [
                row
                for file in sorted((out / "rollouts").iterdir())
                for row in pq.read_table(file).to_pylist()
            ]
        )
    one, two = found
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert two["tokens"] == one["tokens"] and two["drawn"] == one["drawn"]
    assert drawn[0] == drawn[1]
    by = {"student", "teacher"} if name == "answers" else {"student"}
    assert {row["by"] for row in drawn[0]} == by
