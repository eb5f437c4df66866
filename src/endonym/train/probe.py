"""Probes: small measurements of the model on its way, before the first step, between, after the last.

    Probe("needle", measure, every=500)      measure(model) -> {"found": 0.93, "found_32k": 0.88}

A figure is then known as needle/found, in metrics.jsonl, in TensorBoard and to gates (train/gate.py).
A probe must be a function of the model alone: it is measured in eval mode, without gradient, on the
averaged weights where there are any, and with the same random numbers each time, so that two
measurements differ by the model only and a resumed run's log is bitwise that of one that was not.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from endonym.core.errors import RecipeError
from endonym.train.seed import seed_for


@dataclass(frozen=True)
class Probe:
    """every: steps between two measurements; None: the run's probe_every."""

    name: str
    measure: Callable[[nn.Module], dict[str, float]]
    every: int | None = None


class Probes:
    """The probes of one run. RecipeError where two share a name."""

    def __init__(self, probes: Sequence[Probe], every: int, seed: int):
        names = [probe.name for probe in probes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RecipeError("two probes share a name", where="probes", got=", ".join(twice))
        self._probes, self._every, self._seed = list(probes), every, seed

    def due(self, step: int, last: int) -> list[Probe]:
        """Those to measure after `step` steps of a run that may end after `last`."""
        if step in (0, last):
            return self._probes
        every = (
            (probe, self._every if probe.every is None else probe.every) for probe in self._probes
        )
        return [probe for probe, steps in every if steps and step % steps == 0]

    def measured(
        self, due: list[Probe], inside: Callable[[Callable[[nn.Module], dict]], dict]
    ) -> dict[str, float]:
        """The figures of these probes, by "<probe>/<figure>". inside(measure): calls it on the model.

        RecipeError for a figure that is not finite: no bound could be held against it.
        """
        figures: dict[str, float] = {}
        for probe in due:
            torch.manual_seed(seed_for(self._seed, f"probe {probe.name}"))
            for name, value in inside(probe.measure).items():
                if not math.isfinite(value):
                    raise RecipeError(
                        "a probe gave no finite figure", where=f"{probe.name}/{name}", got=value
                    )
                figures[f"{probe.name}/{name}"] = float(value)
        return figures
