"""The part of `endonym plan` that says what a run would take: its options, its table, its JSON."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from endonym.core.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from endonym.core.plan import Step
    from endonym.stages.budget import Budget
    from endonym.stages.machine import Machine

GpuName = Annotated[
    str | None,
    typer.Option("--gpu", help="H100, H200, A100-40GB, A100-80GB, B200, L40S or RTX4090."),
]
Count = Annotated[int, typer.Option("--count", min=1, help="GPUs that share the work.")]
Price = Annotated[float | None, typer.Option("--price", min=0, help="Of an hour of one GPU.")]
Mfu = Annotated[
    float | None, typer.Option("--mfu", help="Share of the GPU's peak that training reaches; 0.3.")
]
Rows = Annotated[
    int | None,
    typer.Option(
        "--rows-per-device", min=1, help="Rows of one forward pass on a GPU; default all."
    ),
]
Checkpointing = Annotated[
    bool, typer.Option("--checkpointing", help="Activations computed anew in the backward pass.")
]
Tokens = Annotated[
    list[str] | None,
    typer.Option(
        "--tokens", metavar="STAGE=N", help="Tokens of a stage that the plan cannot know."
    ),
]

UNSEEN = "no figure for a GPU has been checked on one yet"


def machine(
    gpu: str | None,
    count: int,
    price: float | None,
    mfu: float | None,
    rows: int | None,
    checkpointing: bool,
) -> "Machine":
    """The machine that the options describe; RecipeError where they make no sense together."""
    from endonym.stages.machine import MFU, Machine
    from endonym.stages.machine import gpu as by_name

    if mfu is not None and not 0 < mfu <= 1:
        raise RecipeError("an MFU is a share of the peak", where="--mfu", wanted="0 to 1", got=mfu)
    if gpu is None and (price is not None or mfu is not None):
        raise RecipeError(
            "hours and cost need a GPU",
            where="--price" if price is not None else "--mfu",
            do="name one with --gpu",
        )
    found = None if gpu is None else by_name(gpu)
    return Machine(found, count, price, MFU if mfu is None else mfu, rows, checkpointing)


def tokens_of(given: list[str] | None) -> dict[str, float]:
    """Stage -> tokens, out of `sft=2.2e9`."""
    found = {}
    for word in given or []:
        name, _, text = word.partition("=")
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = -1.0
        if not 0 < found[name] < float("inf"):
            raise RecipeError(
                "tokens are given as STAGE=N", where="--tokens", wanted="sft=2.2e9", got=word
            )
    return found


def budgets(*args: Any, **kwargs: Any) -> "dict[str, Budget]":
    """stages/budget.budgets, imported on use."""
    from endonym.stages.budget import budgets as method

    return method(*args, **kwargs)


def lacking(steps: "dict[str, Step]", absent: dict[str, list[str]]) -> dict[str, str]:
    """Stage -> which data file it waits for, its own or that of a stage that it takes."""
    found: dict[str, str] = {}
    for name, step in steps.items():
        if name in absent:
            found[name] = f"a data file is missing: {', '.join(absent[name])}"
            continue
        for given in step.inputs.values():
            for source in given.values() if isinstance(given, dict) else [given]:
                if source in found:
                    found.setdefault(name, f"a data file of @{source.split()[0]} is missing")
    return found


def summary(
    taken: "dict[str, Budget]", steps: "dict[str, Step]", machine: "Machine"
) -> dict[str, Any]:
    """The machine, and what the stages still to run take together; plain JSON."""
    from endonym.stages.budget import total

    return {
        "gpu": machine.gpu.name if machine.gpu else None,
        "count": machine.count,
        "price": machine.price,
        "mfu": machine.mfu if machine.gpu else None,
        "rows_per_device": machine.rows_per_device,
        "checkpointing": machine.checkpointing,
        **total(taken, steps),
    }


def show(
    console: "Console", taken: "dict[str, Budget]", steps: "dict[str, Step]", machine: "Machine"
) -> None:
    """The table, then what does not fit and what is not known."""
    from rich import box
    from rich.table import Table

    from endonym.stages.budget import quantity, size, total

    if not taken:
        return
    gpu = machine.gpu
    title = f"{machine.count} x {gpu.name}" if gpu else f"{machine.count} GPU, none named"
    columns = ["stage", "params", "tokens", "FLOPs", "GB each", "ckpt. GB"]
    columns += ["fits", "hours"] if gpu else []
    columns += ["cost"] if machine.price is not None else []
    table = Table(
        title=title, box=box.SIMPLE, padding=(0, 1), collapse_padding=True, pad_edge=False
    )
    for each in columns:
        table.add_column(each, justify="left" if each == "stage" else "right", overflow="fold")
    notes, unknown = [], {}
    for name, one in taken.items():
        row = [
            name,
            "?" if one.parameters is None else size(one.parameters),
            "?" if one.tokens is None else quantity(one.tokens),
            "?" if one.flops is None else f"{one.flops:.2e}",
            "?" if one.memory is None else f"{one.memory.total / 1e9:,.1f}",
            "" if one.checkpointed is None else f"{one.checkpointed / 1e9:,.1f}",
        ]
        if gpu:
            row.append({True: "yes", False: "[red]no[/]", None: "?"}[one.fits])
            row.append("?" if one.hours is None else _brief(one.hours))
        if machine.price is not None:
            row.append("?" if one.cost is None else _brief(one.cost))
        table.add_row(*row)
        for why in one.unknown:
            unknown.setdefault(why, []).append(name)
        if one.fits is False:
            least = " or ".join(one.remedies) or "nothing in the table"
            notes.append(f"{name} does not fit {gpu.name}; it would with {least}")
    console.print(table)
    for why, names in unknown.items():  # a reason is said once
        of = names[0] if len(names) == 1 else f"{len(names)} stages"
        notes.append(f"{of}: not known: {why}")
    for note in notes:
        console.print(note, highlight=False, markup=False)
    sums = total(taken, steps)
    if sums["hours"] is not None:
        words = f"still to run: {_brief(sums['hours'])} hours, {sums['flops']:.3g} FLOPs"
        if sums["cost"] is not None:
            words += f", cost {_brief(sums['cost'])}"
        if sums["unknown"]:
            lacking = sums["unknown"]
            of = ", ".join(lacking) if len(lacking) <= 4 else f"{len(lacking)} stages"
            words += f"; without what is not known of {of}"
        console.print(words, highlight=False)
    if machine.count > 1 or machine.checkpointing or any(one.remedies for one in taken.values()):
        console.print(f"note: {UNSEEN}", highlight=False, style="dim")


def _brief(number: float) -> str:
    return f"{number:,.2f}" if number >= 0.01 or not number else f"{number:.1e}"
