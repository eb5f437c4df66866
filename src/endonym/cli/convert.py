"""`endonym convert`: pickled weights to safetensors, foreign tokenizer files to a Hugging Face folder."""

from pathlib import Path
from typing import Annotated

import typer

from endonym.cli.options import AsJson, print_json


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A folder with pickled weights, or a tokenizer's file."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the result; it must not hold anything.")
    ],
    pattern: Annotated[
        str | None,
        typer.Option(
            "--pattern", help="Family or split pattern of a tokenizer that does not tell."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make safetensors of pickled weights (no code of theirs is run), or a tokenizer.json of a
    SentencePiece model or a rank file."""
    if source.is_dir():
        from endonym.model.unpickle import convert as method

        figures = method(source, out)
    else:
        from endonym.core.errors import DataError
        from endonym.tokenizer.read import read

        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError("the folder to write is not empty", where=out, do="name another")
        words = read(source, pattern)
        words.save(out)
        figures = {"vocab_size": words.vocab_size}
    if as_json:
        return print_json({"folder": str(out), "figures": figures})
    for name, value in figures.items():
        typer.echo(f"{name.replace('_', ' ')}: {value:,}")
    typer.echo(f"written: {out}")
