"""What the training stages share: the objective, token stores, and the folder that a trained model leaves."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.stage import Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from endonym.data.store import TokenStore
    from endonym.methods.batch import Loss, Rows
    from endonym.model.checkpoint import CausalLM
    from endonym.tokenizer.folder import Tokenizer


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
    Fine-tuning is the same with mtp_weight 0, its rows' weights saying what is learnt.
    """

    reduce: "Callable[[Tensor], Tensor] | None" = None
    """Sums a layer's load over the processes that train together; the loop sets it."""

    def __init__(self, balance: BalanceConfig, mtp_weight: float):
        self.balance, self.mtp_weight = balance, mtp_weight
        self.loads: dict[int, Tensor] = {}

    def __call__(self, model: "CausalLM", rows: "Rows") -> "Loss":
        from endonym.methods.balance import balanced, load
        from endonym.model.experts import collect_routing

        with collect_routing(model) as routes:
            loss = self.loss(model, rows)
        if not routes:
            return loss
        real = rows.segments > 0
        for route in routes:
            new = load(route.chosen, route.scores.shape[-1], real)
            self.loads[route.layer] = self.loads.get(route.layer, 0) + new
        return balanced(
            loss, routes, real, self.balance.whole, self.balance.by_sequence, rows.weights.sum(1)
        )

    def loss(self, model: "CausalLM", rows: "Rows") -> "Loss":
        """Of one pass, without what keeps experts even; another objective has another (stages/distill.py)."""
        from endonym.methods.mtp import mtp

        ahead = []
        hidden = model(rows.tokens, positions=rows.positions, segments=rows.segments)
        if self.mtp_weight and getattr(model, "mtp", None):
            ahead = model.ahead(hidden, rows.tokens, rows.positions, rows.segments)
        return mtp(
            hidden, ahead, model.head, rows.labels, rows.weights, rows.segments,
            weight=self.mtp_weight, cap=model.cap,
        )  # fmt: skip

    def end_step(self, model: "CausalLM", learned: bool) -> None:
        """After each step of the loop: the biases follow the load, unless the step was skipped."""
        from endonym.methods.balance import update_bias
        from endonym.model.experts import selection_biases

        if learned and self.loads and self.balance.bias_rate:
            for layer, bias in sorted(selection_biases(model).items()):
                load = self.loads[layer]
                load = load if self.reduce is None else self.reduce(load)
                update_bias(bias, load, self.balance.bias_rate)
        self.loads.clear()


def tokenised(
    data: dict[str, Artifact],
    table: str,
    kind: type,
    tokenizer: Path,
    context: Context,
    **how: Any,
) -> "dict[str, TokenStore]":
    """The token store of each label's table, in context.scratch; what stands there is used again.

    Of several processes that train together the main one writes them and the others wait. `how`: of
    conversations, what of them is learnt (data/store.py).
    """
    from endonym.data import bulk
    from endonym.train.parallel import ranks

    def stores() -> "dict[str, TokenStore]":
        return {
            label: bulk.tokenised(
                context.scratch / label,
                one.file(table),
                kind,
                tokenizer,
                key=one.address,
                workers=context.workers,
                **how,
            )
            for label, one in data.items()
        }

    here = ranks(context)
    found = stores() if here.main else {}
    here.barrier()
    return found or stores()


def drawn(loader: Any, figures: dict[str, Any]) -> dict[str, Any]:
    """What the steps that were taken read of the data, the passed-over ones included:

    mixture   by source (PHASE/SOURCE where there are phases): asked for and drawn, epochs, fill
    drawn     tokens by source, language and origin, counted from the rows themselves; by phase
    kept      by phase and language, how many documents its thresholds let through
    """
    steps = figures["steps"] + figures["passed_over"]
    found = {
        "mixture": {row.pop("source"): row for row in loader.report(steps)},
        "drawn": loader.measured(steps),
    }
    kept = loader.kept() if hasattr(loader, "kept") else {}
    return found | ({"kept": kept} if kept else {})


def exporter(tokenizer: "Tokenizer") -> "Callable[[CausalLM, Path], None]":
    """(model, folder): writes both as a Hugging Face folder that can be loaded as it is."""

    def export(model: "CausalLM", folder: Path) -> None:
        from endonym.model import hf

        stops = tokenizer.stop_ids if tokenizer.template else {tokenizer.eos_id}
        hf.save(model, folder, eos_ids=stops, bos_id=tokenizer.bos_id)
        tokenizer.save(folder)

    return export


def finish(
    model: "CausalLM",
    tokenizer: "Tokenizer",
    out: Path,
    context: Context,
    figures: dict[str, Any],
    data: dict[str, Artifact],
    start: Artifact | None,
    *,
    export: "Callable[[Any, Path], None] | None" = None,
) -> Outcome:
    """The model as a Hugging Face folder in `out`, with the run's metrics; licences of all it saw.

    export: what writes the folder; None: exporter(tokenizer). After LoRA the weights are the merged
    ones, and adapter/ holds the matrices alone, in PEFT's format.
    """
    (export or exporter(tokenizer))(model, out)
    for name in ("metrics.jsonl", "timing.jsonl"):
        shutil.copyfile(context.scratch / name, out / name)
    for name in ("tensorboard", "adapter"):
        if (context.scratch / name).is_dir():
            shutil.copytree(context.scratch / name, out / name)
    parents = [*data.values(), *([start] if start else [])]
    licences = [licence for parent in parents for licence in parent.record["licences"]]
    return Outcome(figures, licences)
