"""Whether a step may count: losses and gradients that are not finite, or far above what they were.

Not finite: the loss, or the norm of the gradient, is NaN or infinite. Its update is never taken.
Spike: the loss is above spike_factor, or the norm (before clipping) above spike_norm_factor, times the
median of the last spike_window good steps of the same phase of the data, where that is above zero (a
reward's negative is not). What follows is on_spike:

    note      it is written down and its update taken; the step counts as good from then on
    skip      its update is not taken
    rollback  (also of what is not finite) the state goes back to the anchor, a checkpoint written every
              so many steps, and the data from there to the fault is passed over: the step that
              comes next reads what comes after the fault. PaLM, arXiv:2204.02311, section 5.1, went
              back some 100 steps and passed over 200 to 500 batches

Anchors stand at steps that are multiples of keep.every, or of spike_window, and at step 0, never where
the clock would have had one: so a run that was killed goes back to where an undisturbed one does, and
ends bitwise where it ends. All of this state stands in Progress.extra.

Megatron's rerun of a doubtful step, to tell a fault of the machine from one of the data, is not here:
on the same processes a step gives the same numbers again, which the exact resume already shows.
"""

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from endonym.core.errors import RecipeError
from endonym.train.config import TrainConfig
from endonym.train.eight_bit import to_tensors


@dataclass(frozen=True)
class Fault:
    """What was wrong with a step. value, bound: the loss or norm, and what it was to stay below; where
    the state itself is not finite, value is the tensor's name."""

    reason: str
    value: float | str
    bound: float = math.inf

    @property
    def is_spike(self) -> bool:
        return self.reason.endswith("spike")

    def told(self, data: int, names: list[str]) -> dict[str, Any]:
        """For metrics.jsonl: JSON knows no NaN, so such a value is a word. data: the loader's step."""
        finite = isinstance(self.value, float) and math.isfinite(self.value)
        value = self.value if finite else str(self.value)
        told = {"reason": self.reason, "value": value}
        if self.is_spike:
            told["bound"] = self.bound
        return told | {"data_step": data, "rows": names}


class Health:
    """The judge of one run's steps, and what it remembers.

    shift:   loader steps passed over so far: step s reads loader.rows(s + shift)
    anchor:  step of the checkpoint to go back to, or None
    returns: a line of metrics.jsonl for each return since that anchor was written
    spiked:  the last update was taken although it was a spike (on_spike = "note")
    """

    def __init__(self, config: TrainConfig):
        self._config = config
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._phase: float | None = None
        self.shift = 0
        self.anchor: int | None = None
        self.returns: list[dict[str, Any]] = []
        self.spiked = False

    @property
    def goes_back(self) -> bool:
        return self._config.on_spike == "rollback"

    def enter(self, phase: float | None) -> None:
        """The phase of the data that the next step reads: in another one other losses are usual."""
        if phase != self._phase:
            self._losses, self._norms, self._phase = [], [], phase

    def judged(self, loss: float, norm: float | None = None) -> Fault | None:
        """What is wrong with a loss, or once it is known with the gradient's norm; None: nothing."""
        value, reason, factor, seen = (
            (loss, "loss", self._config.spike_factor, self._losses)
            if norm is None
            else (norm, "gradient", self._config.spike_norm_factor, self._norms)
        )
        if not math.isfinite(value):
            return Fault(reason, value)
        usual = median(seen) if len(seen) >= self._config.spike_window else 0.0
        if 0 < factor * usual < value:
            return Fault(f"{reason} spike", value, factor * usual)
        return None

    def taken(self, loss: float, norm: float, fault: Fault | None) -> None:
        """A step whose update was taken."""
        self.spiked = fault is not None
        for seen, value in ((self._losses, loss), (self._norms, norm)):
            seen.append(value)
            del seen[: -self._config.spike_window]

    def is_anchor(self, step: int, last: int) -> bool:
        """Whether the state after `step` steps is one to go back to."""
        every = self._config.keep.every or self._config.spike_window
        return self.goes_back and (step % every == 0 or step == last)

    def anchored(self, step: int) -> None:
        """The state after `step` steps is about to be saved as the new anchor."""
        self.anchor, self.returns = step, []

    def return_from(self, step: int, told: dict[str, Any], before: dict[str, Any]) -> None:
        """After a fault in step `step`: the anchor's state, `before`, and the data between passed over."""
        shift, anchor, returns = self.shift + step + 1 - self.anchor, self.anchor, self.returns
        first = anchor + self.shift
        self.restore(before)
        self.shift, self.anchor = shift, anchor
        told = told | {"at": step, "back_to": anchor, "passed_over": [first, anchor + shift - 1]}
        self.returns = [*returns, {"step": anchor, "fault": told}]

    def diverged(
        self, fault: Fault, first: int, last: int, rate: float, saved: list[str]
    ) -> RecipeError:
        """max_bad_steps is reached, over the steps first .. last. saved: names of checkpoints."""
        count = self._config.max_bad_steps
        what = f"{count} steps in a row had no finite {fault.reason}"
        if fault.is_spike:
            what = f"{count} steps in a row had a {fault.reason}"
        if self.goes_back:
            what = f"{count} returns to one checkpoint, the last for this: {fault.reason}"
        return RecipeError(
            what,
            where=f"steps {first} to {last} (their places in the data as well)",
            wanted=f"below {fault.bound:.4g}" if fault.is_spike else "a finite loss and gradient",
            got=f"{fault.value} at learning rate {rate:.3g}",
            do="lower learning_rate, lengthen warmup, or look at these rows; "
            + (f"{saved[-1]} is saved" if saved else "no checkpoint was written yet"),
        )

    def state(self) -> dict[str, Any]:
        """JSON, for Progress.extra."""
        return {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "phase": self._phase,
            "shift": self.shift,
            "anchor": self.anchor,
            "returns": list(self.returns),
            "spiked": self.spiked,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._losses, self._norms = list(state["losses"]), list(state["norms"])
        self._phase, self.shift, self.anchor = state["phase"], state["shift"], state["anchor"]
        self.returns, self.spiked = list(state["returns"]), state["spiked"]


def not_finite(model: nn.Module, optimizer: torch.optim.Optimizer) -> str | None:
    """The name of a weight, buffer or moment that is not finite in this process; None where all are."""
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, parameter in model.named_parameters():
        moments = to_tensors(optimizer.state.get(parameter, {}))
        named += [(f"{name}: {key}", each) for key, each in moments.items()]
    for name, tensor in named:
        held = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if held.is_floating_point() and not bool(torch.isfinite(held).all()):
            return name
    return None
