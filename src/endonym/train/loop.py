"""The one training loop: a model, an objective and a loader in; a trained model and figures out.

A step (train/step.py) takes the mean over all weights of all its rows, so it does not depend on how
these were split (train/foresee.py) or divided among processes (train/parallel.py), rounding apart.

Exact resume. Step s draws its data from loader.rows(s) and its random numbers from a generator
seeded with (seed, s): nothing runs on from one step to the next but weights, optimizer, counters and
what health and gates remember, which train/state.py keeps. On a CPU, with the same number of threads,
a run that was killed and run again ends bitwise where an uninterrupted one does. On a GPU torch gives
that promise only for its deterministic kernels.

A step whose loss or gradient is not finite changes nothing (train/health.py). A step without any
weight (a reinforcement group with nothing to learn) is passed over as well and is no fault.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from endonym.core.console import Console
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.methods.batch import Loss, Rows
from endonym.train import parallel
from endonym.train.clock import SaveClock
from endonym.train.config import TrainConfig
from endonym.train.foresee import is_out_of_memory
from endonym.train.gate import Gates
from endonym.train.health import Fault, Health, not_finite
from endonym.train.lock import only_one
from endonym.train.manifest import Progress
from endonym.train.meter import Meter, NoMeter, losses
from endonym.train.probe import Probe, Probes
from endonym.train.schedule import Schedule
from endonym.train.state import Checkpoints
from endonym.train.step import learn
from endonym.train.stop import Stopped, StopRequest
from endonym.train.trainee import Trainee
from endonym.train.work import Work, peak

__all__ = ["Loader", "Objective", "Probe", "TrainConfig", "train"]

Objective = Callable[[nn.Module, Rows], Loss]
"""May have a method end_step(model, learned), called after each step: learned is False where the step
was not taken. What it changes must be weights or buffers of the model, which is what is saved. And an
attribute `reduce`, which is set to the function that sums a tensor over all processes."""


class Loader(Protocol):
    """Besides, a loader may have

    names(step) -> a text for each row, written down where a step has a fault
    state(step) -> figures of its place in the data, such as "phase" and "epoch/<source>"

    A loader whose rows depend on the model as it stands (rollouts) has besides

    sample() -> Rows of the largest shape it will give, asked for before there is anything to draw with
    ready(trainee): called once, before the first step; trainee.inside(f) gives f(model) as it is then
        trained, without gradient, and trainee.ranks the processes that train together

    Such rows are a function of the step's number and of the weights before it: the resumed run draws
    them again, or finds them where the loader has kept them.
    """

    identity: str
    """Changes when any row would; a run is not resumed on other data."""

    def rows(self, step: int, part: tuple[int, int] = (0, 1)) -> Rows:
        """Part r of n of the rows of a step, a function of the step's number alone."""


def train(
    model: nn.Module,
    objective: Objective,
    loader: Loader,
    config: TrainConfig,
    context: Context,
    *,
    title: str = "train",
    probes: Sequence[Probe] = (),
    export: Callable[[nn.Module, Path], None] | None = None,
) -> dict[str, Any]:
    """Trains `model` in place, from the newest checkpoint in context.scratch if there is one.

    probes: measured on the way; config.gates decide by their figures. export: writes the model as a
    folder beside each checkpoint's state. With config.ema the model is the average at the end, with
    config.adapter the merged one (the adapter itself lies in context.scratch / "adapter").

    Figures: steps (done, which gates may change), loss (mean of the last twentieth of the steps),
    loss_first (of the first), tokens, skipped (steps not taken), passed_over (steps of the data),
    seconds, tokens_per_second (of this process), precision, parameters, flops_per_token (without
    attention), blocks ("plain" or "compiled"), tokens_at_once (of a forward pass, at most), saves,
    save_seconds (mean), resumed_at (step or None), probes (each figure before and after), gates
    (whether each is kept). Where the device's peak is known, timing.jsonl has the MFU of every step.

    Errors: RecipeError when max_bad_steps steps in a row are not taken, when weights are not finite,
    or when a gate fails; MachineError when memory will not do or the disk is full; StoreError when no
    checkpoint is whole or another process trains in this folder; Stopped (a SystemExit with status
    143 or 130) after a signal, with the state saved.
    """
    ranks = parallel.ranks(context)
    with only_one(context.scratch) if ranks.main else nullcontext():
        run = _Run(model, objective, loader, config, context, ranks, probes, export)
        with StopRequest(run.console) as stop, run.open(title):
            run.begin()
            while True:
                with run.console.bar(title, run.gates.last, unit="step") as bar:
                    bar.advance(run.progress.step)
                    while (before := run.progress.step) < run.gates.last:
                        shown = run.step()
                        signum = ranks.largest(stop.signum)
                        run.save_where_due(stopping=bool(signum))
                        bar.advance(run.progress.step - before, **shown)
                        if signum:
                            raise Stopped(signum, run.progress.step)
                        run.gates.watch()
                if not run.gates.extension():
                    break
        return run.end()


class _Run:
    """One run: its parts, and where it stands."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        loader: Loader,
        config: TrainConfig,
        context: Context,
        ranks: parallel.Ranks,
        probes: Sequence[Probe],
        export: Callable[[nn.Module, Path], None] | None,
    ):
        self.objective, self.loader = objective, loader
        if hasattr(objective, "reduce"):
            objective.reduce = ranks.sum
        self.config, self.context, self.ranks = config, context, ranks
        self.console = context.console if ranks.main else Console(quiet=True)
        self.rates, self.health = Schedule(config), Health(config)
        self.gates = Gates(config, self.rates.final)
        self.probes = Probes(probes, config.probe_every, config.seed)
        self.work = Work(model, mtp=bool(getattr(objective, "mtp_weight", 0)))
        self.trainee = one = Trainee(model, objective, config, context, ranks, self._samples())
        self.metrics = context.scratch / "metrics.jsonl"
        self.checkpoints = Checkpoints(
            context.scratch / "checkpoints",
            settings={"config": config.model_dump(mode="json"), "data": loader.identity},
            environment=one.environment(context),
            note=self.console.note,
            keep=config.keep,
            export=one.exporter(export),
            ranks=ranks,
            defaults=config.defaults(),
        )
        self.found = self.checkpoints.load(model, one.optimizer, self.metrics, one.averages)
        self.progress = self.found or Progress()
        before = self.progress.extra
        if before:
            self.health.restore(before["health"])
            self.gates.restore(before["gates"])
            self.checkpoints.held = {self.health.anchor} - {None}
        self.forward = one.foresight.forward(one.shapes, before.get("forward_tokens"))
        one.forward = self.forward
        if hasattr(loader, "ready"):
            loader.ready(one)
        self.clock = SaveClock(context.checkpoint_seconds)
        self.peak = peak(one.device, one.dtype)
        self.tokens_here, self.seconds_here = 0, 0.0

    @contextmanager
    def open(self, title: str) -> Iterator[None]:
        """The logs, from where the run stands."""
        step, length = self.progress.step, self.progress.metrics_bytes
        if self.found:
            self.console.note(f"{title}: goes on at step {step} of {self.gates.last}")
        meter = Meter(self.context.scratch, step, length, title) if self.ranks.main else NoMeter()
        with meter as self.meter:
            yield

    def begin(self) -> None:
        """Before the first step: the probes, what they must say, and the state that a rollback may need."""
        if self.found is None:
            self._probe()
        self.gates.watch()
        if self.found is None and self.health.goes_back:
            self._save(anchor=True)

    def step(self) -> dict[str, float]:
        """One step, its line in the logs, and what a fault or a probe asks for. What a bar shows of it."""
        began, step = time.perf_counter(), self.progress.step
        data = step + self.health.shift
        position = self.loader.state(data) if hasattr(self.loader, "state") else {}
        self.health.enter(position.get("phase"))
        parts = self.forward.split(self._rows(data))
        try:
            outcome = learn(self.trainee, self.health, parts, data, self.rates(step))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            rows, length = max((part.tokens.shape for part in parts), key=math.prod)
            raise self.trainee.foresight.too_much(rows * length, length, error) from error
        if hasattr(self.objective, "end_step"):
            self.objective.end_step(self.trainee.model, outcome.learned)
        seconds = time.perf_counter() - began
        bad = outcome.fault is not None and not outcome.learned
        self._count(outcome.tokens, seconds, bad)
        timing = {"step": step, "seconds": seconds, "tokens_per_second": outcome.tokens / seconds}
        if self.peak:
            timing["mfu"] = self.work.of(parts) / seconds / self.peak
        record = outcome.record(step, self.progress.tokens) | position
        if outcome.fault is not None:
            record["fault"] = outcome.fault.told(data, self._names(data))
        self.meter.step(record, timing)
        if bad and self.health.goes_back:
            self._go_back(outcome.fault)
        elif self.progress.bad_in_row >= self.config.max_bad_steps:
            raise self._diverged(outcome.fault, step - self.progress.bad_in_row + 1, step)
        else:
            self._probe()
        shown = {} if outcome.loss is None else {"loss": outcome.loss}
        return shown | {"tok/s": self.tokens_here / self.seconds_here}

    def save_where_due(self, stopping: bool) -> None:
        """A checkpoint by the clock, at an anchor, where one is to be kept, and at the end."""
        step, every = self.progress.step, self.config.keep.every
        if step == self.health.anchor:
            return  # it has just been gone back to
        anchor = self.health.is_anchor(step, self.gates.last)
        fixed = anchor or stopping or step == self.gates.last or (every and step % every == 0)
        if not self.ranks.any(bool(fixed) or (self.clock.due() and not self.health.spiked)):
            return
        if self.health.goes_back:
            broken = not_finite(self.trainee.model, self.trainee.optimizer)
            if self.ranks.any(broken is not None):
                # Gone back from at anchors alone, which no clock decides; else the next loss tells.
                if anchor:
                    self._go_back(Fault("state", broken or "a tensor of another process"))
                return
        self._save(anchor)

    def end(self) -> dict[str, Any]:
        """The model as it is given away, and the figures."""
        self.trainee.give()
        costs, seconds = self.clock.costs, self.seconds_here
        return {
            "steps": self.progress.step,
            **losses(self.metrics, self.progress.step),
            "tokens": self.progress.tokens,
            "skipped": self.progress.skipped,
            "passed_over": self.health.shift,
            "seconds": self.progress.seconds,
            "tokens_per_second": self.tokens_here / seconds if seconds else None,
            "precision": str(self.trainee.dtype).removeprefix("torch."),
            "parameters": self.trainee.num_parameters,
            "flops_per_token": self.work.per_token,
            "blocks": self.trainee.compiled,
            "tokens_at_once": self.forward.tokens,
            "saves": len(costs),
            "save_seconds": sum(costs) / len(costs) if costs else None,
            "resumed_at": self.found.step if self.found else None,
            **self.gates.figures(),
        }

    def _count(self, tokens: int, seconds: float, bad: bool) -> None:
        now = self.progress
        self.progress = replace(
            now,
            step=now.step + 1,
            tokens=now.tokens + tokens,
            skipped=now.skipped + bad,
            bad_in_row=now.bad_in_row + 1 if bad else 0,
            seconds=now.seconds + seconds,
        )
        self.tokens_here += tokens
        self.seconds_here += seconds

    def _probe(self) -> None:
        """What the probes say of the model as it would be given away now, to logs and gates."""
        step = self.progress.step
        due = self.probes.due(step, self.gates.last)
        figures = self.probes.measured(due, self.trainee.measured)
        if figures:
            self.meter.probe(step, figures)
        self.gates.measured(figures, step)

    def _save(self, anchor: bool = False) -> None:
        step = self.progress.step
        if anchor:
            self.health.anchored(step)
            self.checkpoints.held = {step}
        length, digest = self.meter.position()
        extra = {
            "health": self.health.state(),
            "gates": self.gates.state(),
            "forward_tokens": self.forward.tokens,
        }
        self.progress = replace(
            self.progress, metrics_bytes=length, metrics_sha256=digest, extra=extra
        )
        one = self.trainee
        cost = self.checkpoints.save(one.model, one.optimizer, self.progress, one.averages)
        self.clock.saved(cost)
        self.meter.timing({"step": step - 1, "save_seconds": cost})

    def _go_back(self, fault: Fault) -> None:
        """To the anchor; the steps from there on read what comes after the step that had the fault."""
        step, health = self.progress.step - 1, self.health
        data = step + health.shift
        told = fault.told(data, self._names(data))
        one = self.trainee
        before = self.checkpoints.back_to(
            health.anchor, one.model, one.optimizer, self.metrics, one.averages
        )
        health.return_from(step, told, before.extra["health"])
        self.gates.restore(before.extra["gates"])
        faults = before.skipped + len(health.returns)
        self.progress = replace(before, skipped=faults, seconds=self.progress.seconds)
        self.meter.cut(before.step, before.metrics_bytes)
        for line in health.returns:
            self.meter.fault(line)
        self.console.note(f"{fault.reason} at step {step}: back to step {before.step}")
        if len(health.returns) >= self.config.max_bad_steps:
            raise self._diverged(fault, before.step, step)

    def _diverged(self, fault: Fault, first: int, last: int) -> RecipeError:
        good = [folder.name for folder in self.checkpoints.steps()]
        return self.health.diverged(fault, first, last, self.rates(last), good)

    def _rows(self, step: int) -> Rows:
        """This process's part of a step's rows."""
        part = self.ranks.part
        return self.loader.rows(step) if part[1] == 1 else self.loader.rows(step, part)

    def _names(self, step: int) -> list[str]:
        return self.loader.names(step) if hasattr(self.loader, "names") else []

    def _samples(self) -> list[Rows]:
        """The rows of the first step of each span; those of other steps may be a little longer."""
        if hasattr(self.loader, "sample"):
            return [self.loader.sample()]
        starts = [0, *accumulate(span.steps for span in self.config.spans)]
        return [self._rows(start) for start in starts[: len(starts) - 1 or 1]]
