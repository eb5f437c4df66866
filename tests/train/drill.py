"""A very small training run that can be killed; imported by the tests and run as a script.

    python drill.py FOLDER kill [KIND ...]   kills in the middle of saves and at random times, and resumes
                                    each run until it ends; prints what it did
    python drill.py FOLDER term     the same with SIGTERM and SIGINT
    python drill.py FOLDER kills50  50 kills of each kind, at least 15 of them inside saves

KIND: loop (the bare loop) or a stage of tiny_stages.py.

The script forks its runs from a process that has imported torch and run none of it, so that a kill
costs milliseconds and not an import.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import torch._dynamo  # the optimizer imports it: better once than in each fork
import torch.utils.tensorboard  # likewise
from torch import nn

from endonym.core.console import Console
from endonym.core.context import Context
from endonym.methods.batch import Loss, Rows
from endonym.train import loop, state
from endonym.train.config import TrainConfig

VOCABULARY, WIDTH = 13, 8
STEPS = 24


class Tiny(nn.Module):
    """An embedding, dropout (so that random numbers matter), a norm, a layer, a tied head."""

    def __init__(self, seed: int = 0, dropout: float = 0.1):
        super().__init__()
        torch.manual_seed(seed)
        self.config = SimpleNamespace(
            hidden_size=WIDTH,
            vocab_size=VOCABULARY,
            num_hidden_layers=1,
            num_attention_heads=2,
            head_dim=4,
            tie_word_embeddings=True,
        )
        self.embed_tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens, positions=None, segments=None, cache=None):
        hidden = self.dropout(self.embed_tokens(tokens))
        return hidden + torch.tanh(self.layer(self.norm(hidden)))


class Loader:
    """Eight rows of six tokens, a function of the step; after n comes 3 n + 1."""

    identity = "3 n + 1"

    def rows(self, step: int) -> Rows:
        generator = torch.Generator().manual_seed(1000 + step)
        tokens = torch.randint(0, VOCABULARY, (8, 6), generator=generator)
        weights = (torch.rand(8, 6, generator=generator) < 0.8).float()
        return Rows(
            tokens=tokens,
            labels=(3 * tokens + 1) % VOCABULARY,
            weights=weights,
            segments=torch.ones_like(tokens),
            positions=torch.arange(6).expand(8, 6),
        )


def objective(model: nn.Module, rows: Rows) -> Loss:
    """Plain cross-entropy, summed with the weights."""
    logits = model(rows.tokens) @ model.embed_tokens.weight.T
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), rows.labels.flatten(), reduction="none"
    )
    hits = (logits.argmax(-1) == rows.labels).float() * rows.weights
    accuracy = float(hits.sum() / rows.weights.sum())
    return Loss((losses * rows.weights.flatten()).sum(), rows.weights.sum(), {"accuracy": accuracy})


def settings(**changes) -> TrainConfig:
    return TrainConfig(**{"steps": STEPS, "learning_rate": 1e-2, "precision": "float32", **changes})


def context(folder: Path, **changes) -> Context:
    plain = {"threads": 1, "checkpoint_seconds": 1e9, "console": Console(quiet=True)}
    return Context(**{"scratch": folder, **plain, **changes})


def run(folder: Path, **changes) -> dict:
    """Trains with a checkpoint after every step."""
    here = context(folder, checkpoint_seconds=0.0)
    return loop.train(Tiny(), objective, Loader(), settings(**changes), here)


def final(folder: Path) -> dict[str, bytes]:
    """The bytes that must not depend on what happened on the way."""
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    assert last.name == f"step-{STEPS:08d}"
    return {
        "metrics": (folder / "metrics.jsonl").read_bytes(),
        "state": (last / state.TENSORS).read_bytes(),
    }


class KilledAt:
    """Kills this process just before or after the n-th call that its saves make to the outside."""

    def __init__(self, call: int, after: bool):
        self.left, self.after, self.saving = call, after, False
        for owner, name in (
            (state, "save_file"),
            (state, "flush"),
            (state.os, "fsync"),
            (state.Path, "mkdir"),
            (state.Path, "rename"),
            (state.shutil, "rmtree"),
        ):
            setattr(owner, name, self.counted(getattr(owner, name)))
        save = state.Checkpoints.save

        def seen(*args, **kwargs):
            self.saving = True
            try:
                return save(*args, **kwargs)
            finally:
                self.saving = False

        state.Checkpoints.save = seen

    def counted(self, function):
        def call(*args, **kwargs):
            self.left -= self.saving
            last = self.saving and self.left == 0
            if last and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **kwargs)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def fork(folder: Path, before=None, work=None) -> int:
    """A child that trains in `folder`; its process id."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            if before:
                before()
            (work or run)(folder)
            status = 0
        except SystemExit as stop:
            status = stop.code
        except KeyboardInterrupt:  # before the loop's own handler stood
            status = 130
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


STATUS: dict[int, int] = {}


def status_of(child: int, wait: int = os.WNOHANG) -> int | None:
    """The child's exit status, negative where a signal ended it; None while it runs."""
    if child not in STATUS:
        found, status = os.waitpid(child, wait)
        if found:
            STATUS[child] = os.waitstatus_to_exitcode(status)
    return STATUS.get(child)


def ended(child: int) -> int:
    """The child's exit status, waited for."""
    return status_of(child, wait=0)


@dataclass(frozen=True)
class Kind:
    """Something to be killed. calls: of all its saves to the outside, about."""

    work: Callable[[Path], None]
    final: Callable[[Path], dict[str, bytes]]
    checkpoints: str
    calls: int


def kind(name: str, folder: Path) -> Kind:
    if name == "loop":
        return Kind(run, final, "checkpoints", 12 * STEPS)
    from train import tiny_stages

    inputs = folder / "inputs"
    if not inputs.exists():
        inputs.mkdir()
        assert ended(fork(inputs, work=tiny_stages.prepare)) == 0
    return Kind(
        lambda here: tiny_stages.run(name, inputs, here),
        tiny_stages.final,
        "scratch/checkpoints",
        12 * tiny_stages.STEPS,
    )


def kill_drill(folder: Path, chance: random.Random, kind: Kind, inside: int, outside: int) -> dict:
    """Two ways to be killed, in turns, until each has happened often enough.

    Whatever has been killed and run again until it ended has the bytes of a run that was left alone.
    """
    began = time.monotonic()
    assert ended(fork(folder / "whole", work=kind.work)) == 0
    seconds = time.monotonic() - began
    wanted, done = kind.final(folder / "whole"), {"in a save": 0, "at random": 0, "runs": 0}
    while done["in a save"] < inside or done["at random"] < outside:
        here = folder / f"run-{done['runs']}"
        while True:
            if done["in a save"] >= inside and done["at random"] >= outside:
                status = ended(fork(here, work=kind.work))
            elif done["in a save"] / inside <= done["at random"] / outside:
                call, after = chance.randrange(1, kind.calls // 2), chance.random() < 0.5
                killer = lambda c=call, a=after: KilledAt(c, a)  # noqa: E731
                status = ended(fork(here, killer, kind.work))
                done["in a save"] += status == -9
            else:
                wait = chance.uniform(0.0, seconds)
                began, child = time.monotonic(), fork(here, work=kind.work)
                while time.monotonic() - began < wait and status_of(child) is None:
                    time.sleep(0.001)
                if status_of(child) is None:
                    os.kill(child, signal.SIGKILL)
                else:  # too late: the machine is less busy than it was
                    seconds = max(seconds / 2, time.monotonic() - began)
                status = ended(child)
                done["at random"] += status == -9
            assert status in (0, -9), status
            if status == 0:
                break
        left = list((here / kind.checkpoints).glob("*ing-*"))
        assert kind.final(here) == wanted and not left, f"{here.name} ended elsewhere; left: {left}"
        done["runs"] += 1
        shutil.rmtree(here)
    return done


def stop_drill(folder: Path, chance: random.Random) -> dict:
    """A polite stop: status 143 or 130, a checkpoint at the border, the same end."""
    assert ended(fork(folder / "whole")) == 0
    wanted, done = final(folder / "whole"), {"stops": 0, "runs": 0}
    while done["stops"] < 6:
        here = folder / f"run-{done['runs']}"
        while True:
            signum = chance.choice([signal.SIGTERM, signal.SIGINT])
            clock = here / "timing.jsonl"  # only ever grows
            before = clock.stat().st_size if clock.exists() else 0
            child = fork(here)
            while status_of(child) is None and (
                not clock.exists() or clock.stat().st_size == before
            ):
                time.sleep(0.001)
            time.sleep(chance.uniform(0.0, 0.1))
            if status_of(child) is None:
                os.kill(child, signum)
            status = ended(child)
            if status == 0:
                break
            assert status in (128 + signum, -signum), status
            done["stops"] += status == 128 + signum
            lines = (here / "metrics.jsonl").read_bytes().count(b"\n")
            assert (here / "checkpoints" / f"step-{lines:08d}").exists()
        assert final(here) == wanted
        done["runs"] += 1
    return done


def kills(folder: Path, names: list[str], inside: int, outside: int) -> dict:
    found = {}
    for name in names:
        chance = random.Random(f"kill/{name}/1")
        (folder / name).mkdir(parents=True)
        found[name] = kill_drill(folder / name, chance, kind(name, folder), inside, outside)
    return found


ALL = ["loop", "pretrain", "sft", "reward_model"]

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    target, what, *names = sys.argv[1:]
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    if set(names or ALL) - {"loop"}:
        from train import tiny_stages  # noqa: F401, imported before anything is forked
    if what == "kill":
        told = kills(folder, names or ["loop"], 3, 3)
    elif what == "kills50":
        told = kills(folder, names or ALL, 20, 30)
    else:
        told = stop_drill(folder, random.Random("term/1"))
    print(json.dumps(told))
