"""The command `endonym`: run, plan, why, show, report, audit, chat, tokenizer, new-language, merge,
convert.

Answers go to stdout (with --json: one object), everything else to stderr. Nothing heavy is imported
before a command needs it, so that --help answers at once.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from endonym.cli import budget, convert, language, machine, merge, records, tokenizer
from endonym.cli.options import AsJson, Reference, StoreRoot, print_json
from endonym.core.errors import EndonymError, StoreError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make an open base model a language's own: one recipe, every step kept.",
)

RecipeFile = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe, e.g. recipes/typhoon_s.toml")
]
Scale = Annotated[str | None, typer.Option("--scale", "-s", help="One of the recipe's scales.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="A.B=VALUE", help="Change a setting: cpt.steps=500, vars.language=ko."
    ),
]
RunName = Annotated[
    str | None,
    typer.Option("--name", help="Name of the run; default RECIPE-SCALE. Changes no address."),
]
Data = Annotated[
    list[Path] | None,
    typer.Option(
        "--data", envvar="ENDONYM_DATA", help="A folder that relative data paths are looked up in."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:N. Changes no address.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Compute threads. Changes no address.")
]


OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
GO_ON = "stopped; run the same command again to go on"


@app.command()
def run(
    recipe: RecipeFile,
    scale: Scale = None,
    sets: Sets = None,
    until: Annotated[str | None, typer.Option("--until", help="Stop after this stage.")] = None,
    name: RunName = None,
    store: StoreRoot = Path("store"),
    data: Data = None,
    device: Device = "auto",
    threads: Threads = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes that tokenise text. Changes no address."),
    ] = None,
    rows_per_device: Annotated[
        int | None,
        typer.Option("--rows-per-device", help="Rows of one forward pass. Changes no address."),
    ] = None,
    nproc: machine.Processes = None,
    nodes: machine.Nodes = 1,
    slurm: machine.Slurm = None,
    layout: machine.Divided = None,
    checkpointing: machine.Checkpointing = False,
    compile: machine.Compile = "never",
    offload: machine.Offload = False,
    server: machine.Server = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no network for anything.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run what is missing, reuse the rest, take up what was cut off."""
    from endonym.core import recipe as recipes
    from endonym.core.runner import run as run_recipe
    from endonym.core.store import Store
    from endonym.stages import summary
    from endonym.stages.table import stage

    context = replace(
        _context(device, threads, workers, rows_per_device, data, quiet),
        processes=machine.processes(nproc, nodes, slurm),
        layout=machine.layout(layout),
        checkpointing=checkpointing,
        compile=machine.compile_mode(compile),
        offload=offload,
        server=machine.server(server),
        slurm=machine.slurm_settings(slurm, nodes),
    )
    if offline:
        os.environ.update(OFFLINE)
    loaded = recipes.load(recipe, scale, sets, name)
    opened = Store(store)
    done = run_recipe(loaded, opened, stage, context, until)
    told = summary.summarise(loaded, opened, done, context, sys.argv[1:])
    if as_json:
        print_json(told.as_json)
    else:
        told.show(context.console)


@app.command()
def plan(
    recipe: RecipeFile,
    scale: Scale = None,
    sets: Sets = None,
    store: StoreRoot = Path("store"),
    data: Data = None,
    gpu: budget.GpuName = None,
    count: budget.Count = 1,
    price: budget.Price = None,
    mfu: budget.Mfu = None,
    rows_per_device: budget.Rows = None,
    checkpointing: budget.Checkpointing = False,
    tokens: budget.Tokens = None,
    as_json: AsJson = False,
) -> None:
    """What a run would do: every stage, whether it stands already, and why not; and what it would take:
    parameters, tokens, operations, memory of each GPU, hours and money."""
    from rich.console import Console
    from rich.table import Table

    from endonym.core import plan as plans
    from endonym.core import recipe as recipes
    from endonym.core.store import SHOWN, Store
    from endonym.stages.table import stage

    machine = budget.machine(gpu, count, price, mfu, rows_per_device, checkpointing)
    opened, folders, absent = Store(store), tuple(data or ()), {}
    loaded = recipes.load(recipe, scale, sets)
    steps = plans.plan(loaded, opened, stage, folders, absent=absent)
    taken = budget.budgets(steps, machine, tokens=budget.tokens_of(tokens), data=folders)
    lacking = budget.lacking(steps, absent)
    reasons = {
        name: None if step.found else lacking.get(name) or plans.missed(step, steps, opened)
        for name, step in steps.items()
    }
    if as_json:
        rows = [
            {
                "name": name,
                "use": step.stage.name,
                "address": None if name in lacking else step.address,
                "hit": step.found is not None,
                "reason": reasons[name],
                "budget": taken[name].to_dict() if name in taken else None,
            }
            for name, step in steps.items()
        ]
        return print_json({"stages": rows, "budget": budget.summary(taken, steps, machine)})
    table = Table("stage", "use", "address", "state")
    for name, step in steps.items():
        state = "[green]stands[/]" if step.found else f"to run: {reasons[name]}"
        table.add_row(name, step.stage.name, "" if name in lacking else step.address[:SHOWN], state)
    console = Console()
    console.print(table)
    budget.show(console, taken, steps, machine)


@app.command()
def why(
    recipe: RecipeFile,
    name: Annotated[str, typer.Argument(metavar="STAGE")],
    scale: Scale = None,
    sets: Sets = None,
    store: StoreRoot = Path("store"),
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Hit or miss, and field by field the difference to the nearest stored record."""
    from rich.console import Console
    from rich.table import Table

    from endonym.core import plan as plans
    from endonym.core import recipe as recipes
    from endonym.core.store import Store
    from endonym.stages.table import stage

    opened = Store(store)
    steps = plans.plan(
        recipes.load(recipe, scale, sets), opened, stage, tuple(data or ()), until=name
    )
    step = steps[name]
    nearest, rows = (step.found, []) if step.found else plans.why(step, opened)
    if as_json:
        return print_json(
            {
                "stage": name,
                "address": step.address,
                "hit": step.found is not None,
                "nearest": nearest.address if nearest else None,
                "differences": [{"field": f, "stored": a, "wanted": b} for f, a, b in rows],
            }
        )
    console = Console()
    if step.found:
        console.print(f"{name} stands: {step.found.path}")
    elif nearest is None:
        console.print(
            f"{name} was never made in this store: no record of the stage {step.stage.name!r}"
        )
    else:
        console.print(f"{name} has to run. Nearest record: {nearest.path.name}")
        table = Table("field", "stored", "wanted")
        for field, old, new in rows:
            table.add_row(field, *("(default)" if v is None else str(v) for v in (old, new)))
        console.print(table)


app.command()(records.show)
app.command()(records.audit)


@app.command()
def report(
    recipe: RecipeFile,
    scale: Scale = None,
    sets: Sets = None,
    name: RunName = None,
    store: StoreRoot = Path("store"),
    data: Data = None,
) -> None:
    """Write the HTML page of a finished run again, and print its path."""
    from endonym.core import plan as plans
    from endonym.core import recipe as recipes
    from endonym.core.runner import Done
    from endonym.core.store import Store
    from endonym.stages import summary
    from endonym.stages.table import stage

    loaded, opened = recipes.load(recipe, scale, sets, name), Store(store)
    steps = plans.plan(loaded, opened, stage, tuple(data or ()))
    missing = [name for name, step in steps.items() if step.found is None]
    if missing:
        raise StoreError(
            "the run is not finished, so it has no report",
            where=opened.root,
            got=f"to run: {', '.join(missing)}",
            do=f"endonym run {recipe}" + (f" --scale {scale}" if scale else ""),
        )
    done = {name: Done(step, step.found, True) for name, step in steps.items()}
    context = _context("auto", None, None, None, data, False)
    typer.echo(summary.summarise(loaded, opened, done, context, sys.argv[1:]).page)


@app.command()
def chat(
    ref: Reference,
    store: StoreRoot = Path("store"),
    system: Annotated[str | None, typer.Option("--system", help="A system message.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens")] = 256,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Talk with a model in the terminal."""
    folder = (
        Path(ref) if (Path(ref) / "config.json").is_file() else records.resolve(ref, store).path
    )
    from endonym.engine.sampler import Sampling
    from endonym.serve.terminal import chat as talk

    context = _context(device, threads, None, None, None, False)
    talk(folder, context, Sampling(temperature=temperature, max_tokens=max_tokens), system=system)


app.add_typer(tokenizer.app, name="tokenizer")
app.command("new-language")(language.new_language)
app.command()(merge.merge)
app.command()(convert.convert)


def main() -> None:
    """Entry point: every known failure in five parts on stderr, exit code not 0."""
    try:
        app()
    except EndonymError as error:
        _print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"\n{GO_ON}", file=sys.stderr)
        sys.exit(130)
    except SystemExit as stop:
        if stop.code in (130, 143):  # a training stage saved its state and stopped
            print(GO_ON, file=sys.stderr)
        raise


def _print_error(error: EndonymError) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[bold red]error[/] {escape(error.what)}")
    for name, value in error.parts():
        console.print(f"  [dim]{name:>6}[/]  {escape(value)}")


def _context(
    device: str,
    threads: int | None,
    workers: int | None,
    rows_per_device: int | None,
    data: list[Path] | None,
    quiet: bool,
) -> Any:
    from endonym.core.console import Console
    from endonym.core.context import Context

    if threads is not None:  # of torch, and of the tokenizer library
        os.environ |= {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
    return Context(
        device=device,
        threads=threads,
        workers=workers,
        rows_per_device=rows_per_device,
        data=tuple(data or ()),
        console=Console(quiet=quiet),
    )
