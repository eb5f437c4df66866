"""What the arms of a training step share: one optimizer, nothing said or saved beside it, and losses of the
first steps.

Every arm learns by AdamW (betas 0.9 and 0.999, no weight decay) at a constant rate, clipped at 1, for more
steps than are ever measured. Peers' own logging, saving, evaluation and checkpointing are off.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.turns import Steps

if TYPE_CHECKING:
    from endonym.core.context import Context
    from endonym.methods.batch import Rows

LEARNING_RATE = 1e-4

WARMUP = 2
"""Steps before the first turn: the first allocates, the second no longer does."""

STEPS = 100_000


# Endonym's side


def settings(spec: dict[str, Any]) -> dict[str, Any]:
    """Of a TrainConfig."""
    return {
        "steps": STEPS,
        "learning_rate": LEARNING_RATE,
        "schedule": "constant",
        "warmup": 0,
        "betas": (0.9, 0.999),
        "weight_decay": 0,
        "precision": spec["precision"],
    }


def context(spec: dict[str, Any], **more: Any) -> "Context":
    from endonym.core.console import Console
    from endonym.core.context import Context

    return Context(
        threads=spec["threads"],
        checkpoint_seconds=1e9,
        scratch=Path(spec["scratch"]),
        console=Console(quiet=True),
        **more,
    )


class Watched:
    """A loader of which the loop asks a step's rows where the step begins."""

    def __init__(self, loader: Any, steps: Steps, spec: dict[str, Any]):
        self.identity, self._loader, self._steps = loader.identity, loader, steps
        self._log = Path(spec["scratch"]) / "metrics.jsonl"
        self._is_looked_at = not hasattr(loader, "sample")
        if not self._is_looked_at:
            self.sample, self.ready = loader.sample, loader.ready

    def rows(self, step: int, part: tuple[int, int] = (0, 1)) -> "Rows":
        if self._is_looked_at and self._steps.is_first_look():
            return self._loader.rows(step)
        if self._steps.begun and self._steps.is_warming_up:
            log = self._log.read_text().splitlines()
            self._steps.losses = [json.loads(line)["loss"] for line in log]
        self._steps.boundary()
        return self._loader.rows(step)


# The side of trainers of transformers' kind


def arguments(
    spec: dict[str, Any], rows: int, passes: int, learning_rate: float = LEARNING_RATE
) -> dict[str, Any]:
    """Of a TrainingArguments: `rows` at a time, gradients accumulated over so many passes."""
    return {
        "output_dir": spec["scratch"],
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": passes,
        "max_steps": STEPS,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": spec["precision"] == "bfloat16",
        "use_cpu": True,
        "gradient_checkpointing": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def hushed() -> None:
    """No bars, no advice."""
    import logging
    import warnings

    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("trl").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def watched(trainer: type, steps: Steps) -> type:
    """The trainer's class, which says where a step begins and adds up the losses of its passes."""
    from transformers import TrainerCallback

    class Boundary(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if steps.begun < steps.warmup:
                steps.losses.append(0.0)
            steps.boundary()

    class Watched(trainer):
        def __init__(self, **given):
            super().__init__(**given, callbacks=[Boundary()])

        def training_step(self, *given, **named):
            loss = super().training_step(*given, **named)
            if steps.is_warming_up:
                steps.losses[-1] += float(loss)
            return loss

    return Watched
