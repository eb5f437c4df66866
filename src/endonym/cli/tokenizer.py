"""`endonym tokenizer`: measure, train, extend."""

import typer

app = typer.Typer(no_args_is_help=True, help="Measure, train and extend tokenizers.")


@app.callback()
def _group() -> None:
    """Keeps `tokenizer` a group while it has a single command."""
