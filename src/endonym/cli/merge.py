"""`endonym merge`: model folders merged as a mergekit YAML file says."""

from pathlib import Path
from typing import Annotated

import typer

from endonym.cli.options import AsJson, print_json


def merge(
    file: Annotated[Path, typer.Argument(metavar="YAML", help="A merge as mergekit writes it.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the result; it must not hold anything.")
    ],
    models: Annotated[
        Path, typer.Option("--models", help="What the file's model names are relative to.")
    ] = Path("."),
    seed: Annotated[int, typer.Option("--seed", help="Of DARE's choice.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Merge model folders, a tensor at a time: linear, slerp, task arithmetic, TIES, DARE, stacking."""
    from endonym.surgery.merge import merge as method

    figures = method(file, out, models=models, seed=seed)
    if as_json:
        return print_json({"folder": str(out), "figures": figures})
    for name, value in figures.items():
        typer.echo(f"{name.replace('_', ' ')}: {value}")
    typer.echo(f"written: {out}")
