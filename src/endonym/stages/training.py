"""What the training stages share: an objective by name, and the folder that a trained model leaves."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from endonym.core.artifact import Artifact
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome

if TYPE_CHECKING:
    from endonym.methods.batch import Loss, Rows
    from endonym.model.checkpoint import CausalLM
    from endonym.tokenizer.folder import Tokenizer


def objective(name: str) -> "Callable[[CausalLM, Rows], Loss]":
    """(model, rows) -> Loss for a method that is a function of hidden states, head, labels, weights."""
    from endonym.methods.table import method

    try:
        loss = method(name)
    except LookupError as error:
        raise RecipeError(str(error), where="objective") from None

    def on_rows(model: "CausalLM", rows: "Rows") -> "Loss":
        hidden = model(rows.tokens, positions=rows.positions, segments=rows.segments)
        return loss(hidden, model.head, rows.labels, rows.weights)

    return on_rows


def finish(
    model: "CausalLM",
    tokenizer: "Tokenizer",
    out: Path,
    context: Context,
    figures: dict[str, Any],
    data: dict[str, Artifact],
    start: Artifact | None,
) -> Outcome:
    """The model as a Hugging Face folder in `out`, with the run's metrics; licences of all it saw."""
    from endonym.model import hf

    stops = tokenizer.stop_ids if tokenizer.template else {tokenizer.eos_id}
    hf.save(model, out, eos_ids=stops, bos_id=tokenizer.bos_id)
    tokenizer.save(out)
    for name in ("metrics.jsonl", "timing.jsonl"):
        shutil.copyfile(context.scratch / name, out / name)
    board = context.scratch / "tensorboard"
    if board.is_dir():
        shutil.copytree(board, out / "tensorboard")
    parents = [*data.values(), *([start] if start else [])]
    licences = [licence for parent in parents for licence in parent.record["licences"]]
    return Outcome(figures, licences)
