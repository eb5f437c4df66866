"""Two ranks that talk to each other, forked from the test: they share its imports, so they cost little."""

import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

SIZE = 2


def run(function: Callable, *arguments) -> None:
    """function(mesh, *arguments) in two processes; AssertionError with what went wrong in either."""
    with tempfile.TemporaryDirectory() as folder:
        children = [_fork(Path(folder), rank, function, arguments) for rank in range(SIZE)]
        failed = [bool(os.waitpid(child, 0)[1]) for child in children]
        told = "\n".join(path.read_text() for path in sorted(Path(folder).glob("error-*")))
    assert not any(failed), told


def _fork(folder: Path, rank: int, function: Callable, arguments: tuple) -> int:
    child = os.fork()
    if child == 0:
        try:
            store = dist.FileStore(str(folder / "store"), SIZE)
            dist.init_process_group("gloo", rank=rank, world_size=SIZE, store=store)
            function(init_device_mesh("cpu", (SIZE,)), *arguments)
            dist.barrier()
            os._exit(0)
        except BaseException:
            (folder / f"error-{rank}").write_text(traceback.format_exc())
            os._exit(1)
    return child
