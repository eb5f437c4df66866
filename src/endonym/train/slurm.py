"""The workers of train/launch.py as a Slurm job, by submitit.

    context.slurm = {"nodes": 2, "timeout_min": 1440, "slurm_partition": "gpu", ...}

All keys but `executor` are submitit's parameters; nodes: 1 unless given, and the processes are divided
evenly among them. executor: "slurm"; or "local", which starts the same tasks on this machine without
Slurm. The job's folder, with its logs, is in the stage's scratch, which like the store and the data has
to lie on a file system that all nodes see.

The call waits for the job. A signal to it cancels the job, whose workers save their state. A job that
Slurm takes away before its time is put in again by submitit and goes on from its last checkpoint.
"""

import os
import time
from dataclasses import dataclass
from typing import Any

from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.lang.extras import need
from endonym.train.launch import Assignment, Ends, HandingOn

POLL_SECONDS = {"slurm": 5.0, "local": 0.1}


def run(work: Assignment, count: int, context: Context) -> Ends:
    """Sends the job off and returns when it has ended. RecipeError where processes and nodes do not fit."""
    submitit = need("submitit", "slurm", "training as a Slurm job")
    settings = dict(context.slurm or {})
    nodes, cluster = settings.pop("nodes", 1), settings.pop("executor", "slurm")
    if count % nodes:
        raise RecipeError(
            "the processes cannot be divided among the nodes",
            where="--nodes",
            wanted=f"a divisor of {count} processes",
            got=nodes,
        )
    executor = submitit.AutoExecutor(folder=context.scratch / "slurm", cluster=cluster)
    tasks = {"nodes": nodes, "tasks_per_node": count // nodes, "name": work.stage.name}
    if context.device != "cpu":
        tasks["gpus_per_node"] = count // nodes
    if cluster == "slurm":  # one task's failure ends the others, which wait for it in a collective
        tasks["slurm_srun_args"] = ["--kill-on-bad-exit=1"]
    executor.update_parameters(**{**tasks, **settings})
    job = executor.submit(_Task(work))
    context.console.note(
        f"job {job.job_id}: {count} processes, nodes: {nodes}, logs in {job.paths.folder}"
    )
    with HandingOn(lambda signum, again: job.cancel()) as signals:
        while not job.done():
            time.sleep(POLL_SECONDS[cluster])
    return Ends({}, signals.last)


@dataclass(frozen=True)
class _Task:
    """One task of the job."""

    work: Assignment

    def __call__(self) -> None:
        from submitit.helpers import TorchDistributedEnvironment

        given = TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if given.world_size == given.local_world_size:
            os.environ["MASTER_ADDR"] = (
                "127.0.0.1"  # a node's name need not mean anything on itself
            )
        self.work()

    def checkpoint(self) -> Any:
        """Asked for by submitit when the job is taken away: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
