"""Where and with what a stage runs. Nothing here bears identity: no field of it enters an address."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from endonym.core.console import Console
from endonym.core.errors import RecipeError


@dataclass(frozen=True)
class Layout:
    """How the processes of a training stage share its work: replicate x shard x context of them.

    shard:     processes that hold one copy of weights, gradients and optimizer between them; None: all
               that the other dimensions leave
    replicate: such copies, each with rows of its own; their gradients are summed
    context:   processes that share each row between them
    expert:    of the processes that share a copy, so many hold different experts of a mixture
    """

    shard: int | None = None
    replicate: int = 1
    context: int = 1
    expert: int = 1

    def filled(self, processes: int) -> "Layout":
        """The layout with `shard` named. RecipeError where the product is not the number of processes."""
        others = self.replicate * self.context
        shard = self.shard or max(1, processes // others)
        if min(self.replicate, self.context, self.expert, shard) < 1 or shard * others != processes:
            raise RecipeError(
                "the layout does not fit the number of processes",
                where="--layout",
                wanted=f"replicate x shard x context = {processes}",
                got=f"{self.replicate} x {shard} x {self.context}",
            )
        return replace(self, shard=shard)


@dataclass(frozen=True)
class Context:
    """The machine's side of a run.

    device:             "cpu", "cuda" or "cuda:N"
    threads:            compute threads of one process; None leaves the library's choice
    workers:            processes that tokenise a table; None: this one, with the tokenizer library's threads
    rows_per_device:    rows of one forward pass; None lets the stage choose. Gradient accumulation
                        makes up the rest, so it changes speed and memory, not the result's address
    checkpoint_seconds: how often a training stage saves its state
    scratch:            a folder for this stage's unfinished work; it survives a kill
    data:               folders in which a relative data path of a recipe is looked up, in order
    processes:          of a training stage, on all nodes together; None: one for each GPU that there is
                        (train/launch.py)
    layout:             what each of them has of the weights and of the rows (train/parallel.py)
    checkpointing:      compute each block anew in the backward pass: less memory, a third more work
    compile:            "never", "auto" (where a measurement says that it pays) or "always"
    offload:            keep weights, gradients and optimizer in the host's memory
    server:             answers are drawn by a model server (engine/server.py), where a stage can: evaluate,
                        rl, distill
    slurm:              settings of a Slurm job that the training stages are sent to; None: they run here
    """

    device: str = "cpu"
    threads: int | None = None
    workers: int | None = None
    rows_per_device: int | None = None
    checkpoint_seconds: float = 20.0
    scratch: Path = Path(".")
    data: tuple[Path, ...] = ()
    console: Console = field(default_factory=Console)
    processes: int | None = 1
    layout: Layout = Layout()
    checkpointing: bool = False
    compile: str = "never"
    offload: bool = False
    server: bool = False
    slurm: dict[str, Any] | None = None

    def at(self, scratch: Path) -> "Context":
        """The same machine, another scratch folder."""
        return replace(self, scratch=scratch)
