"""A stage for tests of the launcher: a tiny model trained by as many processes as are asked for, with
whatever trouble the settings name. Workers are spawned, so it must be a module of its own."""

import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from endonym.core.config import Config
from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.errors import DataError
from endonym.core.stage import Outcome, Stage
from endonym.train import launch
from endonym.train.loop import train
from train import together


class LaunchedConfig(Config):
    trouble: str = "none"
    """error: raised in the last rank's third step; killed: it kills itself there; slow: a step takes a
    tenth of a second."""


def launched(config: LaunchedConfig, context: Context, out: Path, *, word: str = "") -> Outcome:
    if launch.wanted(context):
        return launch.spread(STAGE, config, context, out, {"word": word})
    rank = int(os.environ.get("RANK", 0))
    context.scratch.joinpath(f"pid-{rank}").write_text(str(os.getpid()))

    class Troubled(together.Objective):
        def end_step(self, model, learned: bool) -> None:
            super().end_step(model, learned)
            if config.trouble == "slow":
                time.sleep(0.1)
            if self.steps == 3 and rank == int(os.environ.get("WORLD_SIZE", 1)) - 1:
                if config.trouble == "error":
                    raise DataError("a row is broken", where="step 3", do="mend it")
                if config.trouble == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)

    net = together.model(tie_word_embeddings=True)
    figures = train(net, Troubled(), together.Loader(), together.config(), context)
    (out / "word").write_text(word)
    return Outcome({"loss": figures["loss"], "tokens": figures["tokens"]}, ["CC0"])


STAGE = Stage("launched", 1, "none", LaunchedConfig, {}, launched)


def call(folder: Path, processes: int, trouble: str = "none") -> int:
    """A process that runs the stage as the command line does, and leaves in told.json what came of it."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        folder.mkdir(exist_ok=True)
        here = Context(
            scratch=folder,
            processes=processes,
            threads=1,
            rows_per_device=2,
            checkpoint_seconds=0.0,
            console=Console(quiet=True),
        )
        config = LaunchedConfig(trouble=trouble)
        try:
            told = asdict(launched(config, here, folder, word="handed on"))
        except Exception as error:
            told = {"error": type(error).__name__, "text": str(error)}
        (folder / "told.json").write_text(json.dumps(told))
        status = 0
    except SystemExit as stop:
        status = stop.code
    finally:
        os._exit(status)


def told(folder: Path, processes: int, trouble: str = "none") -> dict:
    status = os.waitstatus_to_exitcode(os.waitpid(call(folder, processes, trouble), 0)[1])
    assert status == 0, status
    return json.loads((folder / "told.json").read_text()) | alive_in(folder)


def alive_in(folder: Path) -> dict:
    """The workers that are still there after at most 20 seconds, and how long the last one took."""
    began = time.monotonic()
    pids = [int(path.read_text()) for path in folder.glob("pid-*")]
    while time.monotonic() - began < 20 and any(map(is_alive, pids)):
        time.sleep(0.02)
    return {"alive": [pid for pid in pids if is_alive(pid)], "seconds": time.monotonic() - began}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def at_step(folder: Path, least: int) -> None:
    """Returns once the log has so many lines."""
    log = folder / "metrics.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < least:
        time.sleep(0.005)


def signalled(folder: Path, signum: int, least: int) -> dict:
    """A slow run whose parent gets a signal after `least` steps."""
    child = call(folder, 2, "slow")
    at_step(folder, least)
    os.kill(child, signum)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = (folder / "metrics.jsonl").read_bytes().count(b"\n")
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1].name
    return {"status": status, "lines": lines, "newest": newest, **alive_in(folder)}


def final(folder: Path) -> str:
    """A hash of all that must not depend on what happened on the way."""
    last = folder / "checkpoints" / f"step-{together.STEPS:08d}"
    files = [folder / "metrics.jsonl", *sorted(last.glob("*.safetensors"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def scenarios(folder: Path) -> dict:
    found = {}
    found["one"] = told(folder / "one", 1)
    found["two"] = told(folder / "two", 2) | {"final": final(folder / "two")}
    found["error"] = told(folder / "error", 2, "error")
    hurt = folder / "hurt"
    found["killed"] = told(hurt, 2, "killed")
    found["term"] = signalled(hurt, signal.SIGTERM, 5)
    found["int"] = signalled(hurt, signal.SIGINT, 8)
    found["parent"] = signalled(hurt, signal.SIGKILL, 12)
    found["after"] = told(hurt, 2) | {"final": final(hurt)}
    found["word"] = (hurt / "word").read_text()
    return found


if __name__ == "__main__":
    launch.START = "fork"
    print(json.dumps(scenarios(Path(sys.argv[1]))))
