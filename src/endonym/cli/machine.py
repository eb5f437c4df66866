"""Options that say where and with what a run works: none of them changes an address."""

from typing import Annotated, Any

import typer

from endonym.core.config import nearest
from endonym.core.context import Layout
from endonym.core.errors import RecipeError

Processes = Annotated[
    int | None,
    typer.Option("--nproc", help="Training processes on each node. [default: one for each GPU]"),
]
Nodes = Annotated[int, typer.Option("--nodes", help="Nodes of a Slurm job; with --slurm.")]
Slurm = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm",
        metavar="KEY=VALUE",
        help="Train as a Slurm job, with submitit's parameters: slurm_partition=gpu, timeout_min=600.",
    ),
]
Divided = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="NAME=N,...",
        help="Of replicate, shard, context, expert. [default: shard]",
    ),
]
Checkpointing = Annotated[
    bool, typer.Option("--checkpointing", help="Compute activations anew: less memory, more work.")
]
Compile = Annotated[str, typer.Option("--compile", help="never, auto (if it pays) or always.")]
Offload = Annotated[
    bool, typer.Option("--offload", help="Keep weights and optimizer in the host's memory.")
]
Server = Annotated[
    bool,
    typer.Option(
        "--server", help="Draw answers by the model server that ENDONYM_SERVER starts, e.g. vLLM."
    ),
]


def processes(nproc: int | None, nodes: int, slurm: list[str] | None) -> int | None:
    """On all nodes together; None: as the machine has GPUs. RecipeError where that cannot be known."""
    if (nproc is not None and nproc < 1) or nodes < 1:
        raise RecipeError("there is no training without processes", where="--nproc", got=nproc)
    if nodes > 1 and not slurm:
        raise RecipeError(
            "several nodes are reached through Slurm alone",
            where="--nodes",
            do="add --slurm slurm_partition=..., or run on one node",
        )
    if slurm and nproc is None:
        raise RecipeError(
            "a job's GPUs cannot be counted here",
            where="--slurm",
            wanted="--nproc, the processes on each node",
        )
    return None if nproc is None else nproc * nodes


def slurm_settings(pairs: list[str] | None, nodes: int) -> dict[str, Any] | None:
    """submitit's parameters out of KEY=VALUE; whole numbers are numbers."""
    if not pairs:
        return None
    found: dict[str, Any] = {"nodes": nodes}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise RecipeError("not a setting", where="--slurm", wanted="KEY=VALUE", got=pair)
        found[key] = int(value) if value.isdecimal() else value
    return found


def layout(text: str | None) -> Layout:
    """ "shard=4,replicate=2" as a Layout."""
    names = ["replicate", "shard", "context", "expert"]
    found = {}
    for part in text.split(",") if text else []:
        name, _, value = part.partition("=")
        if name not in names:
            raise RecipeError(
                f"a layout has no dimension {name!r}", where="--layout", do=nearest(name, names)
            )
        if not value.isdecimal() or int(value) < 1:
            raise RecipeError("not a size", where="--layout", wanted=f"{name}=N", got=part)
        found[name] = int(value)
    return Layout(**found)


def compile_mode(text: str) -> str:
    """never, auto or always."""
    if text not in ("never", "auto", "always"):
        raise RecipeError("not a way to compile", where="--compile", wanted="never, auto, always")
    return text


def server(wanted: bool) -> bool:
    """The same. MachineError where no usable command is named, which a stage would find out hours later."""
    if wanted:
        from endonym.engine.server import check_command

        check_command()
    return wanted
