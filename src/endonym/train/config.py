"""The settings of one training run. They bear identity; the machine's side is core/context.py.

No torch here: a recipe is read, and its addresses taken, before anything heavy is imported.
"""

from typing import Literal

from pydantic import Field

from endonym.core.config import Config


class TrainConfig(Config):
    """What a run of the loop is, beside its model, objective and data.

    How many rows a step holds is the loader's affair; how many of them go through the model at once
    is `context.rows_per_device` and changes no result (train/loop.py).
    """

    steps: int = Field(gt=0)
    """Optimizer steps."""

    learning_rate: float = Field(gt=0)
    """The highest rate of the schedule."""

    schedule: Literal["cosine", "wsd", "linear", "constant"] = "cosine"
    """The rate's shape after the warm-up (train/schedule.py). Typhoon-S trains SFT and OPD with cosine."""

    warmup: float = Field(default=0.05, ge=0)
    """Below 1: share of the steps. From 1: a number of steps. Typhoon-S: ratio 0.05 (train_sft.sh)."""

    decay: float = Field(default=0.1, ge=0)
    """Length of the last leg of `wsd`, counted like warmup. MiniCPM (arXiv:2404.06395) finds 10 % enough."""

    final_share: float = Field(default=0.0, ge=0, le=1)
    """The rate at the end as a share of learning_rate. Solar Open ends at 3e-6 of 2.5e-4: 0.012."""

    betas: tuple[float, float] = (0.9, 0.95)
    """Adam's decay rates. Solar Open, arXiv:2601.07022: .9/.95."""

    eps: float = Field(default=1e-8, gt=0)
    """Added to Adam's denominator. Solar Open: 1e-8."""

    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled; on matrices only (train/optim.py). Solar Open: .1."""

    clip: float = Field(default=1.0, ge=0)
    """Largest global gradient norm; 0 switches clipping off. Solar Open: 1.0."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; weights and optimizer are float32. `auto`: precision_of in train/loop.py."""

    seed: int = 0
    """Of dropout and of whatever else an objective draws; the data order has its own seed."""

    max_bad_steps: int = Field(default=5, ge=1)
    """So many steps in a row without a finite loss and gradient end the run with an error."""
