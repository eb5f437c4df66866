"""What commands share: options with one meaning everywhere, and how JSON is printed."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Language = Annotated[
    str, typer.Option("--language", "-l", help="Of the texts that do not say: th, ko, ...")
]
StoreRoot = Annotated[
    Path, typer.Option("--store", envvar="ENDONYM_STORE", help="Where artifacts are kept.")
]
Reference = Annotated[
    str,
    typer.Argument(
        metavar="REF", help="A folder, an address or its beginning, or RECIPE-SCALE/STAGE."
    ),
]
Texts = "Data files, folders or patterns; LANGUAGE=PATH says whose words to count."


def print_json(value: Any) -> None:
    """One object on stdout, non-ASCII letters as they are."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))
