"""`endonym convert`: pickled weights to safetensors, foreign tokenizer files to a Hugging Face folder."""

from pathlib import Path
from typing import Annotated, Any

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
    plain: Annotated[
        bool,
        typer.Option(
            "--plain", help="Of a model that no stock class runs: leave out what it lacks."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make safetensors of pickled weights (no code of theirs is run), or a tokenizer.json of a
    SentencePiece model or a rank file."""
    if plain:
        figures = _plain(source, out)
    elif source.is_dir():
        from endonym.model.unpickle import convert as method

        figures = method(source, out)
    else:
        from endonym.tokenizer.read import read

        _check_free(out)
        words = read(source, pattern)
        words.save(out)
        figures = {"vocab_size": words.vocab_size}
    if as_json:
        return print_json({"folder": str(out), "figures": figures})
    for name, value in figures.items():
        typer.echo(
            f"{name.replace('_', ' ')}: {value:,}" if isinstance(value, int) else f"{name}: {value}"
        )
    typer.echo(f"written: {out}")


def _plain(source: Path, out: Path) -> dict[str, Any]:
    """The model as a stock class: without skips and multi-token modules. It computes something else
    where skips are left out."""
    from endonym.model import hf
    from endonym.tokenizer.folder import Tokenizer

    _check_free(out)
    saved = hf.save(hf.load(source), out, plain=True)
    if (source / "tokenizer.json").is_file():
        Tokenizer.load(source).save(out)
    return {"architecture": saved.architecture, "left_out": ", ".join(saved.dropped) or "nothing"}


def _check_free(out: Path) -> None:
    from endonym.core.errors import DataError

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError("the folder to write is not empty", where=out, do="name another")
