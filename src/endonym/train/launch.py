"""A stage's function in several processes: here, or as a Slurm job.

    if launch.wanted(context):
        return launch.spread(STAGE, config, context, out, inputs)

Every worker calls the stage's function with the same arguments; parallel.ranks() tells each which one
it is. The main rank writes `out` and its outcome is the outcome; the others leave where the training
ends (parallel.Left), so what a stage does after train() is done once.

Workers end with the process that started them, however it ends (a watch on its process id), and all of
them as soon as one has failed: state on the disk is whole at every moment (train/state.py), so nothing
is gained by waiting for a collective that will never end. A signal to the parent goes on to each, which
save at the next step border; the parent then raises Stopped as the loop in one process would. An error
of a worker is the error of the call.

torch's elastic agent does more than is needed here (rendezvous, restarts) and two things less: it asks
the others politely, for 30 seconds, when one has died, and it reports failures once a worker.
"""

import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Self

from endonym.core import errors
from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.errors import EndonymError, MachineError
from endonym.core.stage import Outcome, Stage

LOOK_SECONDS, LEAVING_SECONDS = 0.1, 2.0
PARENT_SECONDS = 1.0

START = "spawn"
"""How workers begin. A process that has used a GPU cannot be forked; tests on a CPU can, and save the
imports."""

ENDED, STOPPED, FAILED = "ended", "stopped", "failed"


def wanted(context: Context) -> bool:
    """Whether the stage is to be run by spread(), and this process is not yet one of those it started."""
    if "RANK" in os.environ:
        return False
    return context.slurm is not None or processes(context) > 1


def processes(context: Context) -> int:
    """How many processes the context means: where it leaves it open, one for each GPU."""
    if context.processes is not None:
        return context.processes
    if context.device not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def spread(
    stage: Stage, config: Any, context: Context, out: Path, inputs: dict[str, Any]
) -> Outcome:
    """The stage's outcome, made by several processes. What they raise is raised here, once."""
    told = context.scratch / "ranks"
    told.mkdir(parents=True, exist_ok=True)
    for old in told.iterdir():
        old.unlink()
    count = processes(context)
    work = Assignment(
        stage, config, _plain(context, count), context.console.quiet, out, inputs, told
    )
    if context.slurm is not None:
        from endonym.train import slurm

        ends = slurm.run(work, count, context)
    else:
        ends = _run_here(work, count)
    return _outcome(told, ends)


@dataclass(frozen=True)
class Ends:
    """How workers ended that did not end well.

    died: rank -> what ended it, of those that were ended from outside
    signum: the signal that the parent got and handed on; 0: none
    """

    died: dict[int, str]
    signum: int = 0


@dataclass(frozen=True)
class Assignment:
    """What a worker is told; all of it can be pickled for a process of our own."""

    stage: Stage
    config: Any
    context: dict[str, Any]
    quiet: bool
    out: Path
    inputs: dict[str, Any]
    told: Path

    def __call__(self) -> None:
        """In a worker, whose environment has its rank: runs the stage, and tells how it ended."""
        from endonym.train.parallel import Left
        from endonym.train.stop import Stopped

        rank = int(os.environ["RANK"])
        try:
            outcome = self.stage.run(self.config, self._here(rank), self.out, self.inputs)
            if rank == 0:
                self._tell(rank, ENDED, outcome=asdict(outcome))
        except Left:
            pass
        except Stopped as stop:
            self._tell(rank, STOPPED, signum=stop.signum, step=stop.step)
        except EndonymError as error:
            parts = {name: str(value) for name, value in error.parts()}
            self._tell(rank, FAILED, kind=type(error).__name__, what=error.what, parts=parts)
            os._exit(1)
        except BaseException:
            self._tell(rank, FAILED, kind=None, what=traceback.format_exc(), parts={})
            os._exit(1)

    def _here(self, rank: int) -> Context:
        context = Context(**self.context, console=Console(quiet=self.quiet or rank > 0))
        if context.device in ("auto", "cuda"):
            import torch

            if torch.cuda.is_available():
                local = int(os.environ["LOCAL_RANK"])
                context = replace(context, device=f"cuda:{local % torch.cuda.device_count()}")
        return context

    def _tell(self, rank: int, how: str, **what: Any) -> None:
        line = json.dumps({"rank": rank, "how": how, "time": time.time(), **what})
        aside = self.told / f".{rank}"
        aside.write_text(line, encoding="utf-8")
        aside.rename(self.told / f"{rank}.json")


def _plain(context: Context, count: int) -> dict[str, Any]:
    """The context of a worker, without what belongs to this process alone."""
    here = replace(context, slurm=None, processes=count)
    return {each.name: getattr(here, each.name) for each in fields(here) if each.name != "console"}


def _run_here(work: Assignment, count: int) -> Ends:
    import torch.distributed as dist
    from torch.multiprocessing import start_processes

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = work.context["threads"] or max(1, cores // count)
    work = replace(work, context={**work.context, "threads": threads})
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    variables = {
        "OMP_NUM_THREADS": str(threads),  # read where torch is imported, before our first line
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is this process's: no rank makes one
    }
    with _environment(variables):
        begun = start_processes(_worker, (work, os.getpid()), count, join=False, start_method=START)
    workers = begun.processes
    try:
        with HandingOn(lambda *how: _send(workers, *how)) as signals:
            while any(worker.exitcode is None for worker in workers):
                wait([each.sentinel for each in workers if each.exitcode is None], LOOK_SECONDS)
                if any(worker.exitcode for worker in workers):
                    break
        # One that was killed may still be on its way out when those that miss it have already left.
        until = time.monotonic() + LEAVING_SECONDS
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))
        codes = [worker.exitcode for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join()
    died = {
        rank: signal.Signals(-code).name for rank, code in enumerate(codes) if code and code < 0
    }
    return Ends(died, signals.last)


def _send(workers: list[BaseProcess], signum: int, again: bool) -> None:
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL if again else signum)


def _worker(local_rank: int, work: Assignment, parent: int) -> None:
    """Entry of a spawned process."""
    # A terminal sends its Ctrl-C to all of its session: the workers get it from their parent, once.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    os.environ |= {"RANK": str(local_rank), "LOCAL_RANK": str(local_rank)}
    work()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


class HandingOn:
    """While entered, SIGTERM and SIGINT are handed on by send(signum, again); the second one also ends
    this process."""

    def __init__(self, send: Callable[[int, bool], None]):
        self.last = 0
        self._send = send
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._hand_on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hand_on(self, signum: int, frame: FrameType | None) -> None:
        again, self.last = bool(self.last), signum
        self._send(signum, again)
        if again:
            os._exit(128 + signum)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _outcome(told: Path, ends: Ends) -> Outcome:
    """What the main rank made. Otherwise the first error that a person can act on is raised; then the
    end of a worker by force; then the first other error: one lost rank gives every other rank one."""
    from endonym.train.stop import Stopped

    words = [json.loads(path.read_text(encoding="utf-8")) for path in told.glob("*.json")]
    failed = sorted(
        (each for each in words if each["how"] == FAILED), key=lambda each: each["time"]
    )
    for each in failed:
        if each["kind"] is not None:
            raise getattr(errors, each["kind"])(each["what"], **each["parts"])
    if ends.died and not ends.signum:
        raise MachineError(
            "a training process was killed, and the others were ended with it",
            got=", ".join(f"rank {rank}: {how}" for rank, how in ends.died.items()),
            do="run the same command again, it goes on from the last checkpoint; if it was the system, "
            "for want of memory: fewer rows_per_device, --checkpointing, or a smaller --nproc",
        )
    if failed and not ends.signum:
        raise RuntimeError(f"rank {failed[0]['rank']} failed:\n{failed[0]['what']}")
    for each in words:
        if each["how"] == STOPPED:
            raise Stopped(each["signum"], each["step"])
        if each["how"] == ENDED:
            return Outcome(**each["outcome"])
    if ends.signum:
        raise Stopped(ends.signum, 0)  # before the loop's first step: nothing to save
    raise MachineError("the training processes ended without a word", where=told)
