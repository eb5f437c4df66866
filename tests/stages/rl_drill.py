"""A small reinforcement run that is killed, at random and around the writing of its rollouts, and resumed.

    python rl_drill.py FOLDER KILLS_IN_SAVES KILLS_AT_RANDOM KILLS_IN_WRITES

Writing takes three calls a batch, so nine in all; killed is before each of them and after the last, for
after one is before the next. Every run must end with the bytes of one that was left alone, its rollouts
among them. How and when is killed: train/drill.py, and KilledInWrite here.
"""

import json
import os
import random
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

STEPS = 6
SETTINGS = {
    "steps": STEPS,
    "updates": 2,
    "old": "trainer",
    "dynamic": True,
    "prompts_per_step": 4,
    "group": 4,
    "row_length": 64,
    "max_prompt": 40,
    "learning_rate": 3e-3,
    "sampling": {"max_tokens": 6, "temperature": 1.0},
    "ink": {"rows": 3},
    "precision": "float32",
}


class KilledInWrite:
    """Kills this process just before or after the n-th call that writing rollouts makes to the outside."""

    def __init__(self, call: int, after: bool):
        self.left, self.after = call, after
        record.pq.write_table = self.counted(record.pq.write_table)
        record.flush = self.counted(record.flush)
        Path.rename = self.counted(Path.rename)

    def counted(self, function):
        def call(*arguments, **named):
            mine = ".parquet" in str(arguments) or ".partial" in str(arguments)
            self.left -= mine
            last = mine and self.left == 0
            if last and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **named)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def work(inputs: Path, folder: Path) -> None:
    """One attempt, as the runner makes it: the output begun anew, the scratch as it was."""
    out, scratch = folder / "out", folder / "scratch"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    scratch.mkdir(exist_ok=True)
    given = test_rl.prepared(inputs) if not (inputs / "model").exists() else test_rl.again(inputs)
    reward = {"reward": {"mine": 1.0}, "own": {"mine": str(inputs.parent / "mine.py")}}
    here = Context(scratch=scratch, threads=1, checkpoint_seconds=0.0, console=Console(quiet=True))
    rl(RlConfig.read(SETTINGS | reward), here, out, **given, library=None)


def final(folder: Path) -> dict[str, bytes]:
    """The bytes that must not depend on what happened on the way."""
    last = folder / "scratch" / "checkpoints" / f"step-{STEPS:08d}"
    files = [folder / "out" / "model.safetensors", folder / "out" / "metrics.jsonl"]
    files += [last / "state.safetensors", *sorted((folder / "out" / "rollouts").iterdir())]
    return {path.name: path.read_bytes() for path in files}


def main(folder: Path, inside: int, outside: int, written: int) -> dict[str, int]:
    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    test_rl.own(folder, "float(len(text) % 2)")
    kind = drill.Kind(lambda here: work(inputs, here), final, "scratch/checkpoints", 12 * STEPS)
    (folder / "kills").mkdir()
    told = drill.kill_drill(folder / "kills", random.Random("rl/1"), kind, inside, outside)
    wanted = final(folder / "kills" / "whole")
    told["in a write"] = 0
    for call, after in [*((call, False) for call in range(1, written + 1)), (written, True)]:
        here = folder / f"write-{call}-{after}"
        killer = lambda c=call, a=after: KilledInWrite(c, a)  # noqa: E731
        status = drill.ended(drill.fork(here, killer, kind.work))
        assert status == -9, status
        told["in a write"] += 1
        assert drill.ended(drill.fork(here, work=kind.work)) == 0
        assert final(here) == wanted, f"{here.name} ended elsewhere"
    return told


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    # Once here, and not in every fork
    with suppress(ImportError):  # pyarrow's, where it is
        import pandas  # noqa: F401
    import endonym.model.hf
    import endonym.rewards.mix
    import endonym.rollouts.groups
    import endonym.train.loop  # noqa: F401
    from endonym.core.console import Console
    from endonym.core.context import Context
    from endonym.rollouts import record
    from endonym.stages.rl import RlConfig, rl
    from endonym.tokenizer import chat, sandbox
    from stages import test_rl
    from train import drill

    request = {"template": chat.CHATML, "messages": [], "parts": [(0, True)], "tools": None}
    sandbox.texts(request | {"variables": {}})  # the renderer, and the template compiled
    print(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
