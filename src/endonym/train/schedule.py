"""Learning rates: pure functions of the step, over a whole run or over its spans.

p(s) counts what lies before step s of a curve of n steps: p(s) = s by steps, or the nominal tokens by
tokens. A curve warms up over its first W steps and ends, with its last step, at the share m of its
highest rate:

    w(s) = p(s + 1) / p(W)                                       s < W
    u(s) = (p(s) - p(W)) / (p(n - 1) - p(W))                     progress after it, 0 .. 1

    cosine    m + (1 - m) (1 + cos(pi u)) / 2                    arXiv:1608.03983, without restarts
    linear    m + (1 - m) (1 - u)
    wsd       1, then over the last D steps m + (1 - m) (1 - v)  arXiv:2404.06395, warm-up stable decay
              v(s) = (p(s) - p(n - 1 - D)) / (p(n - 1) - p(n - 1 - D))
    constant  1

The first step of a warm-up is 1/W and not 0 (a step at rate 0 would be one step's data for
nothing), and the last step has exactly the share m. MiniCPM lets the last leg of WSD fall
exponentially; it is linear here, one of the two forms arXiv:2405.18392 compares.

A span that begins a curve of its own warms up from the rate with which the one before it ended (ours;
the reports do not say), so that the rate jumps only where such a span has no warm-up. Steps after the
last one, in a run that a gate extends, keep the last rate.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from endonym.core.errors import RecipeError
from endonym.train.config import Span

if TYPE_CHECKING:
    from endonym.train.config import TrainConfig

Stretches = tuple[tuple[int, int], ...]
"""(steps, what one of them counts: 1, or its nominal tokens) of neighbouring spans."""


class Schedule:
    """rates = Schedule(config);  rates(step) -> learning rate. RecipeError where the spans do not fit."""

    def __init__(self, config: "TrainConfig"):
        spans = list(config.spans) or [Span(steps=config.steps)]
        _refuse(config, spans)
        self.curves: list[Curve] = []
        while spans:
            count = 1
            while count < len(spans) and not spans[count].begins_curve:
                count += 1
            self.curves.append(Curve(config, spans[:count], self.curves[-1:]))
            spans = spans[count:]

    def __call__(self, step: int) -> float:
        """The learning rate of a step of the run."""
        for curve in self.curves:
            if step < curve.begin + curve.num_steps:
                return curve.rate(step - curve.begin)
        return self.final

    @property
    def final(self) -> float:
        """The rate of the last step."""
        return self.curves[-1].last


class Curve:
    """One curve over the steps of some spans, after the curve in `before` if there is one."""

    def __init__(self, config: "TrainConfig", spans: list[Span], before: list["Curve"]):
        def chosen(name: str):
            own = getattr(spans[0], name)
            return getattr(config, name) if own is None else own

        by_tokens = config.schedule_by == "tokens" and bool(config.spans)
        self._stretches = tuple((span.steps, span.tokens_per_step or 0) for span in spans)
        if not by_tokens:
            self._stretches = tuple((span.steps, 1) for span in spans)
        self.num_steps = sum(span.steps for span in spans)
        self.begin = before[0].begin + before[0].num_steps if before else 0
        self.start = before[0].last if before else 0.0
        self.highest, self.schedule = chosen("learning_rate"), chosen("schedule")
        self.final_share, last = chosen("final_share"), self.num_steps - 1
        self.warmup = length(chosen("warmup"), self._stretches)
        if self.warmup > last > 0:
            raise RecipeError(
                "the warm-up leaves no step at the full rate",
                where="warmup" if not before else f"warmup of the span from step {self.begin}",
                wanted=f"fewer than {self.num_steps} steps",
                got=self.warmup,
                do="lower warmup; below 1 it is a share of the steps",
            )
        decay = length(chosen("decay"), self._stretches[::-1])
        self.fall = max(last - decay, self.warmup)  # where the last leg of wsd begins

    def rate(self, step: int) -> float:
        """At a step counted from the curve's own beginning."""
        if step < self.warmup:
            risen = self._counted(step + 1) / self._counted(self.warmup)
            return self.start + (self.highest - self.start) * risen
        final = self.final_share
        if self.schedule == "cosine":
            along = self._progress(step, self.warmup)
            return self.highest * (final + (1 - final) * (1 + math.cos(math.pi * along)) / 2)
        if self.schedule == "linear":
            along = self._progress(step, self.warmup)
            return self.highest * (final + (1 - final) * (1 - along))
        if self.schedule == "wsd" and step > self.fall:
            along = self._progress(step, self.fall)
            return self.highest * (final + (1 - final) * (1 - along))
        return self.highest

    @property
    def last(self) -> float:
        return self.rate(self.num_steps - 1)

    def _progress(self, step: int, since: int) -> float:
        begin, end = self._counted(since), self._counted(self.num_steps - 1)
        return (self._counted(step) - begin) / max(1, end - begin)

    def _counted(self, step: int) -> int:
        """p(step) of the head of this file."""
        count = 0
        for steps, unit in self._stretches:
            inside = min(step, steps)
            count, step = count + inside * unit, step - inside
        return count


def length(amount: float, stretches: Stretches) -> int:
    """Steps, from the first on, that `amount` names: below 1 a share of all that is counted, else steps."""
    if amount >= 1:
        return round(amount)
    left = amount * sum(steps * unit for steps, unit in stretches)
    whole = 0
    for steps, unit in stretches:
        if left < steps * unit:
            return whole + round(left / unit)
        whole, left = whole + steps, left - steps * unit
    return whole


def _refuse(config: "TrainConfig", spans: Iterable[Span]) -> None:
    steps = [span.steps for span in spans]
    if sum(steps) != config.steps:
        raise RecipeError(
            "the spans do not add up to the run",
            where="spans",
            wanted=f"{config.steps} steps",
            got=f"{' + '.join(map(str, steps))} = {sum(steps)}",
        )
    lacking = [n for n, span in enumerate(config.spans) if span.tokens_per_step is None]
    if config.schedule_by == "tokens" and lacking:
        raise RecipeError(
            "a schedule by tokens needs to know the tokens of a step",
            where=f"spans[{lacking[0]}].tokens_per_step",
            wanted="rows of a step times their length",
            do='give it, or set schedule_by = "steps"',
        )
