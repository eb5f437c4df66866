"""A model made ready to learn, and given back: adapter, eight bits, compiler, ranks, optimizer, average.

    trainee = Trainee(model, objective, config, context, ranks)
    trainee.stepping(rows) -> Loss      trainee.measured(probe)      trainee.give()

Nothing is allocated before trainee.foresight, made first, has been asked whether it will fit.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from endonym.core.artifact import write_json
from endonym.core.context import Context, Layout
from endonym.methods.batch import Loss, Rows
from endonym.model.device import place
from endonym.train import adapter, optim, parallel, precision
from endonym.train import compile as compiling
from endonym.train.config import TrainConfig
from endonym.train.ema import Ema
from endonym.train.foresee import Foresight


class Trainee:
    """model: in place what it was given; num_parameters: of it without an adapter; samples: this rank's
    rows of a step, one of each kind that the run has."""

    def __init__(
        self,
        model: nn.Module,
        objective: Callable[[nn.Module, Rows], Loss],
        config: TrainConfig,
        context: Context,
        ranks: parallel.Ranks,
        samples: Sequence[Rows],
    ):
        self.model, self.config, self.ranks = model, config, ranks
        self.scratch, self.device = context.scratch, place(context)
        self.dtype = precision.precision_of(config.precision, self.device, model.config.hidden_size)
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        if config.adapter is not None:
            adapter.attach(model, config.adapter, config.seed)
        self.foresight = Foresight(model, config, context, self.device, self.dtype, ranks)
        self.shapes = [tuple(rows.tokens.shape) for rows in samples]
        forward = self.foresight.forward(self.shapes)
        self.forward = forward
        """How a step is split into passes; the loop sets it anew where a resumed run must split as before."""
        if config.precision == "float8":
            precision.convert(model)
        self.compiled = self._compiled(context, forward.split(samples[0]))
        self.stepping = parallel.Stepping(model.train(), objective)
        parallel.shard(
            self.stepping,
            ranks,
            self.device,
            self.dtype,
            checkpointing=context.checkpointing,
            offload=context.offload,
        )
        self.optimizer = optim.build(model, config, context.offload)
        self.ema = Ema(model, config.ema) if config.ema else None

    def environment(self, context: Context) -> dict[str, Any]:
        """What the run is done on; another value of these gives other roundings."""
        cuda = self.device.type == "cuda"
        found = {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "precision": str(self.dtype).removeprefix("torch."),
            "processes": self.ranks.size,
            "blocks": self.compiled,
        }
        if context.layout != Layout():
            found["layout"] = asdict(self.ranks.layout)
        if context.rows_per_device is not None:
            found["rows_per_device"] = context.rows_per_device
        return found

    @property
    def averages(self) -> dict[str, Tensor]:
        """What a checkpoint must hold besides weights and optimizer."""
        return {} if self.ema is None else self.ema.tensors()

    def cast(self) -> AbstractContextManager:
        """What the products run under."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def measured(self, measure: Callable[[nn.Module], Any]) -> Any:
        """measure(model), on the weights that would be given away now."""
        self.model.eval()
        with self._averaged(), self.cast():
            found = self.stepping.inside(measure)
        self.model.train()
        return found

    def inside(self, function: Callable[[nn.Module], Any]) -> Any:
        """function(model), on the weights as they are being trained, without gradient."""
        self.model.eval()
        with self.cast():
            found = self.stepping.inside(function)
        self.model.train()
        return found

    @contextmanager
    def sampling(self) -> Iterator[nn.Module]:
        """The model as it is being trained, whole in this process, in eval mode and without gradient: what
        answers are drawn with. All ranks must enter it together.

        In one process it is the model itself, elsewhere a gathered copy in this rank's memory, in the
        products' precision, for as long as the context lasts. An adapter is merged meanwhile.
        """
        whole = self.stepping.whole(self.ranks, self.device, self.dtype)
        with ExitStack() as stack:
            if self.config.adapter is not None:
                stack.enter_context(adapter.merged(whole))
            stack.enter_context(torch.no_grad())
            stack.enter_context(self.cast())
            try:
                yield whole.eval()
            finally:
                self.model.train()

    def exporter(
        self, export: Callable[[nn.Module, Path], None] | None
    ) -> Callable[[nn.Module, Path], None] | None:
        """export(model, folder) by the main rank, with what would be given away now; all ranks call it."""
        if export is None:
            return None

        def given(model: nn.Module, folder: Path) -> None:
            with ExitStack() as stack:
                stack.enter_context(self._averaged())
                whole = self.stepping.whole(self.ranks)
                if whole is None:
                    return  # not the main rank
                if self.config.adapter is not None:
                    stack.enter_context(adapter.merged(whole))
                export(whole, folder)

        return given

    def give(self) -> None:
        """The model plain and whole again: averaged, merged, in eval mode. The adapter by itself is
        left in <scratch>/adapter. Other ranks than the main one do not come back from here."""
        if self.ema is not None:
            self.ema.give(self.model)
        self.stepping.end(self.ranks)
        if self.compiled == compiling.COMPILED:
            compiling.undone(list(self.model.model.layers))
        if self.config.precision == "float8":
            precision.revert(self.model)
        if self.config.adapter is not None:
            adapter.save_adapter(self.model, self.scratch / adapter.FOLDER)
            adapter.merge_into(self.model)
        self.model.eval()

    def _compiled(self, context: Context, parts: list[Rows]) -> str:
        """The choice of train/compile.py. It is remembered, so that a resumed run rounds as before."""
        memory = context.scratch / "compile.json"
        before = json.loads(memory.read_bytes()) if memory.exists() else None
        choice = compiling.decide(
            self.model,
            parts[0],
            context,
            passes=self.config.steps * len(parts),
            device=self.device,
            dtype=self.dtype,
            before=before,
            largest=self.ranks.largest,
        )
        if self.ranks.main and context.compile != "never" and choice != before:
            write_json(memory, choice)
        return choice

    def _averaged(self) -> AbstractContextManager:
        return nullcontext() if self.ema is None else self.ema.applied(self.model)
