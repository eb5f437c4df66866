"""What the training stages share: objectives, and the folder that a trained model leaves."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome

if TYPE_CHECKING:
    from torch import Tensor

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
        return loss(hidden, model.head, rows.labels, rows.weights, cap=model.cap)

    return on_rows


class BalanceConfig(Config):
    """How experts are kept evenly used (methods/balance.py); nothing of it touches a model without."""

    whole: float = Field(default=0.0, ge=0)
    """Coefficient of the auxiliary loss over the batch."""
    by_sequence: float = Field(default=1e-4, ge=0)
    """Of the one within each row. K-EXAONE, Solar Open: 1e-4."""
    bias_rate: float = Field(default=1e-4, ge=0)
    """Step of the selection biases of sigmoid routers. K-EXAONE 1e-4, Solar Open 1e-3."""


class NextTokens:
    """The objective of pre-training: the next token, what lies further ahead, and experts evenly used.

    MTP modules learn where the model has any and mtp_weight is above 0; the balance losses and the
    update of selection biases (once a step, with the load of all its rows) where it has experts.
    """

    def __init__(self, balance: BalanceConfig, mtp_weight: float):
        self.balance, self.mtp_weight = balance, mtp_weight
        self.loads: dict[int, Tensor] = {}

    def __call__(self, model: "CausalLM", rows: "Rows") -> "Loss":
        from endonym.methods.balance import balanced, load
        from endonym.methods.mtp import mtp
        from endonym.model.experts import collect_routing

        ahead = []
        with collect_routing(model) as routes:
            hidden = model(rows.tokens, positions=rows.positions, segments=rows.segments)
            if self.mtp_weight and getattr(model, "mtp", None):
                ahead = model.ahead(hidden, rows.tokens, rows.positions, rows.segments)
        loss = mtp(
            hidden, ahead, model.head, rows.labels, rows.weights, rows.segments,
            weight=self.mtp_weight, cap=model.cap,
        )  # fmt: skip
        if not routes:
            return loss
        real = rows.segments > 0
        for route in routes:
            new = load(route.chosen, route.scores.shape[-1], real)
            self.loads[route.layer] = self.loads.get(route.layer, 0) + new
        return balanced(loss, routes, real, self.balance.whole, self.balance.by_sequence)

    def end_step(self, model: "CausalLM", learned: bool) -> None:
        """After each step of the loop: the biases follow the load, unless the step was skipped."""
        from endonym.methods.balance import update_bias
        from endonym.model.experts import selection_biases

        if learned and self.loads and self.balance.bias_rate:
            for layer, bias in selection_biases(model).items():
                update_bias(bias, self.loads[layer], self.balance.bias_rate)
        self.loads.clear()


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
