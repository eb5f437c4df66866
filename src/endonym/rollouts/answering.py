"""Who draws the answers that a run learns from: our engine, or a server of the weights as they stand.

    own(trainee, stamp)             our engine in each process, with the model that is being trained
    server.serving(trainee, stamp)  the model written to scratch/served, a server started for that folder,
                                    asked by all processes, ended, the folder removed

A server is started anew for every batch that is drawn, for its weights are new; reading them takes it
from half a minute to minutes. It pays where much is drawn at once (prompts_per_step x group, `updates`
above 1) and where a model is large; else our engine, which reads nothing, is done before a server has
begun. While it is asked the training's own weights and states stay where they are.
"""

import hashlib
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import nn

from endonym.core.context import Context
from endonym.core.errors import MachineError
from endonym.engine.answered import note
from endonym.engine.backends import Backend, Own, Served, serving
from endonym.engine.server import check_command, reached
from endonym.train.config import TrainConfig
from endonym.train.trainee import Trainee

FOLDER = "served"
"""In the scratch folder, as long as its server is there."""


@contextmanager
def answering(
    trainee: Trainee, stamp: str, server: "Server | None" = None, *, batch: int
) -> Iterator[Backend]:
    """The weights as they stand, asked through the server or, without one, through our engine."""
    how = own(trainee, stamp, batch=batch) if server is None else server.serving(trainee, stamp)
    with how as backend:
        yield backend


@contextmanager
def own(trainee: Trainee, stamp: str, *, batch: int) -> Iterator[Own]:
    """Our engine. All processes enter together. batch: prompts at a time."""
    with trainee.sampling() as model:
        backend = Own(model, stamp, batch=batch)
        if trainee.ranks.main:
            note(trainee.scratch, backend)
        yield backend


class Server:
    """Starts a server for the weights as they stand, as often as it is asked to.

    run:    the run's name; weights are served as RUN-STAMP, where the stamp names the step
    export: (model, folder) writes a Hugging Face folder with its tokenizer (stages/training.exporter)
    """

    def __init__(self, run: str, export: Callable[[nn.Module, Path], None]):
        self.run, self.export = run, export

    @contextmanager
    def serving(self, trainee: Trainee, stamp: str) -> Iterator[Served]:
        """The backend of a server that the main process has started. All processes enter together.

        Adapters are merged. MachineError where it does not start, ends while it is asked, or where the
        processes are on several nodes: it listens on one of them, to that one alone.
        """
        ranks, name = trainee.ranks, f"{self.run}-{stamp}"
        nodes = set(ranks.gather(socket.gethostname()))
        if len(nodes) > 1:
            raise MachineError(
                "a server answers the processes of its own node alone",
                where="--server", wanted="one node", got=", ".join(sorted(nodes)),
                do="train on one node, or draw without --server",
            )  # fmt: skip
        folder = trainee.scratch / FOLDER
        self._save(trainee, folder)
        try:
            with ExitStack() as stack:
                mine = stack.enter_context(serving(folder, name)) if ranks.main else None
                if mine:
                    note(trainee.scratch, mine)
                ranks.barrier()  # it may take longer to start than a collective waits
                url = ranks.gather(mine and mine.url)[0]
                yield mine or stack.enter_context(reached(url, name))
                ranks.barrier()  # nobody asks any more
        finally:
            if ranks.main:
                shutil.rmtree(folder, ignore_errors=True)

    def _save(self, trainee: Trainee, folder: Path) -> None:
        """The whole model in `folder`, by the main process; no copy of it stays in any process's memory."""
        with trainee.sampling() as model:
            if trainee.ranks.main:
                shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
                self.export(model, folder)
        del model
        if trainee.device.type == "cuda":
            torch.cuda.empty_cache()  # the server may be on the same device


def server_of(
    context: Context,
    stage: str,
    start: str,
    config: TrainConfig,
    export: Callable[[nn.Module, Path], None],
) -> Server | None:
    """The server of a stage that begins with the model `start` (its address); None: our engine draws.

    MachineError where the machine is to draw by one and no usable command is named.
    """
    if not context.server:
        return None
    check_command()
    told = json.dumps([start, config.model_dump(mode="json")], sort_keys=True)
    return Server(f"{stage}-{hashlib.sha256(told.encode()).hexdigest()[:12]}", export)
