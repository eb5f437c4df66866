"""A token store out of a table, by many workers: of this machine, of a Slurm cluster, of a Ray cluster.

    table -> ranges of rows -> one plain store each (a task) -> TokenStore.join -> the store

datatrove's executors place the tasks and remember which are done. The ranges depend on the table
alone: any number of workers makes the same shards, hence the same sequences in the same order, and a
run that was cut off goes on where it stopped, with other workers if need be. A task's shard is written
beside and renamed (TokenStore.build), the joined meta.json comes last: without it there is no store.

A task that fails writes its error into a file; it is raised here as it was there, the first by row.
Local workers belong to a process that ends them all once this one is gone, however it ended. Slurm
and Ray workers must see the folder, the table and the tokenizer under the same paths.

Decontamination and deduplication are not done here: they compare rows with one another and with
exams, and stand in the documents stage, in one pass.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from pathlib import Path
from shlex import quote
from typing import Any

from endonym.core import errors
from endonym.core.config import nearest
from endonym.core.errors import DataError, EndonymError, MachineError, RecipeError
from endonym.data.document import Conversation, Document, num_rows, read_table
from endonym.data.store import TokenStore, identity_of
from endonym.lang.extras import need

FEWEST_ROWS, MOST_SHARDS = 512, 512
POLL_SECONDS = 5.0
"""Between two looks at Slurm's queue."""
WATCH_SECONDS = 1.0
"""Between two looks at local workers."""
KINDS = {kind.__name__: kind for kind in (Document, Conversation)}
WORK = "work"
"""Folder of an unfinished store: datatrove's logs and marks of completion, our errors."""


def tokenised(
    folder: Path | str,
    table: Path,
    kind: type[Document] | type[Conversation],
    tokenizer_folder: Path,
    key: str,
    workers: int | None = None,
    executor: str = "local",
    *,
    learn: str = "assistant",
    variables: dict[str, Any] | None = None,
    **settings: Any,
) -> TokenStore:
    """The store at `folder` of the rows of `table`; one that stands there and fits is only opened.

    key:      names the rows' content, as in TokenStore.build
    workers:  tasks at a time. "local": None or 1 builds one plain store in this process; "slurm" and
              "ray": None sets no limit
    executor: "local", "slurm" or "ray"
    learn, variables: of conversations, as in TokenStore.build
    settings: further arguments of datatrove's SlurmPipelineExecutor (partition and time are needed;
              cpus_per_task, mem_per_cpu_gb, env_command ...) or RayPipelineExecutor

    MachineError where datatrove or the cluster's commands are missing or a worker was killed.
    """
    from endonym.tokenizer.folder import Tokenizer

    if executor not in EXECUTORS:
        raise RecipeError(
            f"there is no executor {executor!r}", do=nearest(executor, list(EXECUTORS))
        )
    folder, table = Path(folder).absolute(), Path(table).absolute()
    tokenizer_folder = Path(tokenizer_folder).absolute()
    tokenizer = Tokenizer.load(tokenizer_folder)
    how = {"learn": learn, "variables": variables}
    identity, rows = identity_of(key, tokenizer, **how), num_rows(table)
    if _known(folder / "meta.json").get("identity") == identity:
        return TokenStore(folder)
    if not rows or (executor == "local" and workers in (None, 1)):
        return TokenStore.build(folder, read_table(table, kind), tokenizer, key=key, **how)

    need("datatrove", "data", "Building a token store with several workers")
    job = {"identity": identity, "rows": rows, "shard": shard_rows(rows)}
    work = _opened(folder, job)
    tasks = -(-rows // job["shard"])
    pipeline = [
        Read(table, kind.__name__, rows, job["shard"]),
        Write(folder, tokenizer_folder, key, job["shard"], how),
    ]
    EXECUTORS[executor](pipeline, tasks, workers, work, settings)
    _raise_failure(work)
    absent = [n for n in range(tasks) if not (work / "completions" / f"{n:05d}").is_file()]
    if absent:
        raise MachineError(
            "a worker ended before its part of the token store was written",
            where=folder / f"{absent[0]:03d}",
            got=_last_lines(work) or None,
            do="run the same command again: what is finished is kept (was memory short?)",
        )
    store = TokenStore.join(folder, identity)
    shutil.rmtree(work)
    return store


def shard_rows(rows: int) -> int:
    """Rows of one shard: at most MOST_SHARDS shards, and not below FEWEST_ROWS a shard."""
    return max(FEWEST_ROWS, -(-rows // MOST_SHARDS))


# --- one task ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """Task -> the rows of its range. The first step of the pipeline."""

    table: Path
    kind: str
    """By name, for datatrove writes the steps down as JSON and takes a dataclass for one of its values."""
    rows: int
    shard: int

    def __call__(self, data: None, rank: int, world_size: int) -> Iterator[Any]:
        begin = rank * self.shard
        chosen = range(begin, min(begin + self.shard, self.rows))
        return read_table(self.table, KINDS[self.kind], rows=chosen)


@dataclass(frozen=True)
class Write:
    """Rows -> the plain store of their range. The second step."""

    folder: Path
    tokenizer: Path
    key: str
    shard: int
    how: dict[str, Any]

    def __call__(self, data: Iterable[Any], rank: int, world_size: int) -> None:
        # One worker, one thread: the tokenizer's own threads would fight for the same cores.
        os.environ["RAYON_NUM_THREADS"] = os.environ.get("SLURM_CPUS_PER_TASK", "1")
        failure = self.folder / WORK / "failures" / f"{rank:05d}.json"
        running = self.folder / WORK / "running" / f"{rank:05d}"
        running.write_text(str(os.getpid()))
        begin = rank * self.shard
        try:
            TokenStore.build(
                self.folder / f"{rank:03d}",
                data,
                _tokenizer(self.tokenizer),
                key=f"{self.key} rows {begin} of {self.shard}",
                first=begin,
                **self.how,
            )
        except EndonymError as error:
            parts = {"what": error.what} | dict(error.parts())
            aside = failure.with_suffix(".partial")
            aside.write_text(json.dumps([type(error).__name__, parts]), encoding="utf-8")
            aside.rename(failure)
            raise
        finally:
            running.unlink()


@lru_cache(maxsize=1)
def _tokenizer(folder: Path):
    from endonym.tokenizer.folder import Tokenizer

    return Tokenizer.load(folder)


# --- the job's folder -------------------------------------------------------------------------------


def _opened(folder: Path, job: dict[str, Any]) -> Path:
    """The work folder of this job: as it was left, or new where another job or store stood there."""
    work = folder / WORK
    if _known(work / "job.json") != job:
        shutil.rmtree(folder, ignore_errors=True)
        work.mkdir(parents=True)
        (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    for name in ("failures", "running"):
        shutil.rmtree(work / name, ignore_errors=True)
        (work / name).mkdir()
    for rest in folder.glob("*.partial"):
        shutil.rmtree(rest)
    for mark in (work / "completions").glob("*"):
        if not (folder / f"{int(mark.name):03d}" / "meta.json").is_file():
            mark.unlink()
    return work


def _known(file: Path) -> dict[str, Any]:
    """What a JSON file says; {} where it is missing or was cut off."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _raise_failure(work: Path) -> None:
    """Raise the error of the first task that left one."""
    for file in sorted((work / "failures").glob("*.json")):
        name, parts = json.loads(file.read_text(encoding="utf-8"))
        kind: type[EndonymError] = getattr(errors, name, DataError)
        raise kind(parts.pop("what"), **parts)


def _last_lines(work: Path, count: int = 15) -> str:
    """The end of what a worker wrote last."""
    logs = [*work.glob("*.log"), *work.glob("logs/*.log"), *work.glob("slurm_logs/*.out")]
    logs = [log for log in logs if log.stat().st_size]
    if not logs:
        return ""
    last = max(logs, key=lambda log: log.stat().st_mtime)
    return "\n".join(last.read_text(errors="replace").splitlines()[-count:])


# --- executors --------------------------------------------------------------------------------------


def _local(
    pipeline: list[Callable], tasks: int, workers: int | None, work: Path, settings: dict[str, Any]
) -> None:
    """Workers of this machine, below a process of their own that ends them when this one is gone.

    datatrove's pool is forked from it and not from here, where threads may run, and its manager would
    outlive a kill.
    """
    if settings:
        raise RecipeError("local workers have no settings", got=", ".join(settings))
    import dill

    file = work / "local.pickle"
    file.write_bytes(dill.dumps((pipeline, tasks, min(workers or 1, tasks), str(work))))
    code = f"from endonym.data.bulk import _serve; _serve({str(file)!r})"
    with (work / "local.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            process.wait()
        finally:
            process.stdin.close()
            process.wait()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _serve(file: str) -> None:
    """Run local tasks; end them all, and this process, when the process that waits for them is gone
    or one of them was killed (datatrove's pool would wait for its result for ever)."""
    import dill

    pipeline, tasks, workers, work = dill.loads(Path(file).read_bytes())

    def watch() -> None:
        is_open = True
        while is_open and all(map(_is_alive, _running(Path(work)))):
            is_open = not select.select([0], [], [], WATCH_SECONDS)[0]
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    from datatrove.executor import LocalPipelineExecutor

    try:
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=workers, logging_dir=work).run()
    except EndonymError:
        os._exit(1)  # it stands in the task's file


def _running(work: Path) -> list[int]:
    """The processes that have a task in hand."""
    found = []
    for file in (work / "running").iterdir():
        with suppress(FileNotFoundError, ValueError):  # finished just now, or begun
            found.append(int(file.read_text()))
    return found


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _slurm(
    pipeline: list[Callable], tasks: int, workers: int | None, work: Path, settings: dict[str, Any]
) -> None:
    """A Slurm job array of the tasks that are not done; returns when none of it is left in the queue."""
    from datatrove.executor import SlurmPipelineExecutor

    if shutil.which("sbatch") is None:
        raise MachineError("there is no sbatch here", do="run it where Slurm's commands are")
    if len(str(work).split()) > 1:
        raise MachineError("datatrove's Slurm scripts take no path with white space", where=work)
    own = {
        "job_name": "endonym-tokenise",
        "qos": "",
        "env_command": f"export PATH={quote(str(Path(sys.executable).parent))}:$PATH",
        **settings,
    }
    _check(SlurmPipelineExecutor, own, needed=("partition", "time"))
    executor = SlurmPipelineExecutor(
        pipeline, tasks=tasks, workers=workers or -1, logging_dir=str(work), **own
    )
    executor.run()
    is_over = False
    try:
        while not is_over and executor.get_incomplete_ranks() and not _failed(work):
            is_over = not _is_queued(executor.job_id)
            if not is_over:
                time.sleep(POLL_SECONDS)
        is_over = is_over or not _failed(work)
    finally:
        if not is_over:  # an interrupt here, or a task that failed: the rest would be in vain
            subprocess.run(["scancel", executor.job_id], check=False)


def _failed(work: Path) -> bool:
    return any((work / "failures").glob("*.json"))


def _is_queued(job: str) -> bool:
    """Whether Slurm still has a task of the job to run. Slurm forgets finished jobs: then squeue fails."""
    found = subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True, check=False)
    return found.returncode == 0 and bool(found.stdout.strip())


def _ray(
    pipeline: list[Callable], tasks: int, workers: int | None, work: Path, settings: dict[str, Any]
) -> None:
    """Tasks on the Ray cluster that this process is connected to, or that RAY_ADDRESS names."""
    ray = need("ray", "ray", "Building a token store on Ray")
    from datatrove.executor.ray import RayPipelineExecutor

    _check(RayPipelineExecutor, settings)
    if not ray.is_initialized():
        ray.init()
    RayPipelineExecutor(
        pipeline, tasks=tasks, workers=workers or -1, logging_dir=str(work), **settings
    ).run()


def _check(executor: type, settings: dict[str, Any], needed: tuple[str, ...] = ()) -> None:
    """RecipeError for a setting that the executor does not know, or for one that it needs."""
    ours = {"self", "pipeline", "tasks", "workers", "logging_dir", "skip_completed", "depends"}
    known = sorted(set(signature(executor).parameters) - ours)
    for name in settings:
        if name not in known:
            raise RecipeError(
                f"{executor.__name__} has no setting {name!r}", do=nearest(name, known)
            )
    for name in needed:
        if name not in settings:
            raise RecipeError(f"the setting {name!r} is missing", wanted=f"{name} = ...")


EXECUTORS = {"local": _local, "slurm": _slurm, "ray": _ray}
