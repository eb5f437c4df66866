"""The one training loop: a model, an objective and a loader in; a trained model and figures out.

One step, over the micro-batches b of its rows:

    g = (sum_b d value_b / d theta) / (sum_b weight_b)      then clip, then AdamW

`value` is a sum of weighted losses and `weight` the sum of the weights, so the step does not depend
on how its rows were split (context.rows_per_device), rounding apart.

Exact resume. Step s draws its data from loader.rows(s) and its random numbers from a generator
seeded with (seed, s): nothing runs on from one step to the next but weights, optimizer and counters,
which train/state.py keeps. On a CPU, with the same number of threads, a run that was killed and run
again ends bitwise where an uninterrupted one does. On a GPU torch gives that promise only for its
deterministic kernels.

A step whose loss or gradient is not finite changes nothing: it is skipped, counted, and its number,
which is also its place in the data, is written to metrics.jsonl. A step without any weight (a
reinforcement group with nothing to learn) is passed over as well and is no fault.
"""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from endonym.core.context import Context
from endonym.core.errors import MachineError, RecipeError
from endonym.methods.batch import Loss, Rows
from endonym.model.device import place
from endonym.train import optim, schedule
from endonym.train.config import TrainConfig
from endonym.train.meter import Meter, flops_per_token, peak
from endonym.train.state import Checkpoints, Progress
from endonym.train.stop import Stopped, StopRequest

__all__ = ["Loader", "Objective", "TrainConfig", "precision_of", "train"]

Objective = Callable[[nn.Module, Rows], Loss]
"""May have a method end_step(model, learned), called after each step: learned is False where the step
was skipped. What it changes must be weights or buffers of the model, which is what is saved."""

# Narrower than this the casts cost what the products save: measured on two cores with avx512_bf16,
# bf16 against float32 was 1.0x at width 128, 1.5x at 192, 1.8x at 256.
BF16_WIDTH = 192

# Saving may take at most this share of the time, however short the interval asked for.
SAVE_SHARE = 0.05


class Loader(Protocol):
    identity: str
    """Changes when any row would; a run is not resumed on other data."""

    def rows(self, step: int) -> Rows:
        """The rows of a step, a function of the step's number alone."""


@dataclass(frozen=True)
class _Step:
    """What came of one step; `skipped` is the reason if nothing was learned."""

    loss: float | None
    grad_norm: float | None
    learning_rate: float
    figures: dict[str, float]
    tokens: int
    skipped: str | None = None


def train(
    model: nn.Module,
    objective: Objective,
    loader: Loader,
    config: TrainConfig,
    context: Context,
    *,
    title: str = "train",
) -> dict[str, Any]:
    """Trains `model` in place, from the newest checkpoint in context.scratch if there is one.

    Figures: steps, loss (mean of the last twentieth of the steps), loss_first (of the first), tokens,
    skipped, seconds, tokens_per_second (of this process), precision, parameters, flops_per_token
    (without attention), saves, save_seconds (mean), resumed_at (step or None). Where the device's peak
    is known, timing.jsonl has the MFU of every step.

    Errors: RecipeError when max_bad_steps steps in a row are not finite, or when weights are not;
    MachineError when the disk is full; StoreError when no checkpoint is whole; Stopped (a SystemExit
    with status 143 or 130) after a signal, with the state saved.
    """
    device = place(context)
    model.to(device).train()
    dtype = precision_of(config.precision, device, model.config.hidden_size)
    optimizer = optim.adamw(
        model,
        learning_rate=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    checkpoints = Checkpoints(
        context.scratch / "checkpoints",
        settings={"config": config.model_dump(mode="json"), "data": loader.identity},
        environment=_environment(device, dtype),
        note=context.console.note,
    )
    found = checkpoints.load(model, optimizer, context.scratch / "metrics.jsonl")
    progress = found or Progress()
    if found:
        context.console.note(f"{title}: goes on at step {found.step} of {config.steps}")
    clock = _SaveClock(context.checkpoint_seconds)
    end_step = getattr(objective, "end_step", None)
    limit = peak(device, dtype)
    here, spent = 0, 0.0
    with (
        StopRequest(context.console) as stop,
        Meter(context.scratch, progress.step, progress.metrics_bytes) as meter,
        context.console.bar(title, config.steps, unit="step") as bar,
    ):
        bar.advance(progress.step)
        for step in range(progress.step, config.steps):
            began = time.perf_counter()
            rows = loader.rows(step)
            parts = rows.split(context.rows_per_device) if context.rows_per_device else [rows]
            outcome = _one_step(model, objective, optimizer, parts, config, device, dtype, step)
            if end_step is not None:
                end_step(model, outcome.skipped is None)
            seconds = time.perf_counter() - began
            progress = _after(progress, outcome, seconds)
            here, spent = here + outcome.tokens, spent + seconds
            timing = {"seconds": seconds, "tokens_per_second": outcome.tokens / seconds}
            if limit:
                timing["mfu"] = _flops(model, parts) / seconds / limit
            meter.step(_record(step, outcome, progress), {"step": step, **timing})
            shown = {} if outcome.loss is None else {"loss": outcome.loss}
            bar.advance(1, **shown, **{"tok/s": here / spent})
            if progress.bad_in_row >= config.max_bad_steps:
                raise _diverged(progress, outcome, checkpoints)
            if clock.due() or stop.signum or progress.step == config.steps:
                length, digest = meter.position()
                progress = replace(progress, metrics_bytes=length, metrics_sha256=digest)
                clock.saved(checkpoints.save(model, optimizer, progress))
                meter.timing({"step": step, "save_seconds": clock.costs[-1]})
            if stop.signum:
                break
        if stop.signum:
            raise Stopped(stop.signum, progress.step)
    model.eval()
    work, _ = flops_per_token(model)
    return {
        "steps": config.steps,
        **_losses(meter.path, config.steps),
        "tokens": progress.tokens,
        "skipped": progress.skipped,
        "seconds": progress.seconds,
        "tokens_per_second": here / spent if spent else None,
        "precision": str(dtype).removeprefix("torch."),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops_per_token": work,
        "saves": len(clock.costs),
        "save_seconds": sum(clock.costs) / len(clock.costs) if clock.costs else None,
        "resumed_at": found.step if found else None,
    }


def precision_of(wish: str, device: torch.device, width: int) -> torch.dtype:
    """The type of matrix products: what is wished, or for "auto" bf16 where it exists and pays."""
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()
        has = any(features.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    if wish == "bfloat16" and not has:
        raise MachineError(
            "this device has no bf16 arithmetic",
            where=device,
            do='set precision = "float32", or "auto"',
        )
    if wish == "float32" or (wish == "auto" and (not has or width < BF16_WIDTH)):
        return torch.float32
    return torch.bfloat16


def _one_step(
    model: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    parts: list[Rows],
    config: TrainConfig,
    device: torch.device,
    dtype: torch.dtype,
    step: int,
) -> _Step:
    """Forward and backward of each micro-batch, then the update."""
    torch.manual_seed(_seed(config.seed, step))
    optimizer.zero_grad(set_to_none=True)
    cast = torch.autocast(device.type, dtype) if dtype != torch.float32 else nullcontext()
    value = torch.zeros((), dtype=torch.float64, device=device)
    weight = torch.zeros((), dtype=torch.float64, device=device)
    sums: dict[str, float] = {}
    for part in parts:
        with cast:
            loss = objective(model, part.to(device))
        if loss.value.requires_grad:
            loss.value.backward()
        value += loss.value.detach()
        weight += loss.weight
        for name, figure in loss.figures.items():
            sums[name] = sums.get(name, 0.0) + figure * float(loss.weight)
    total = float(weight)
    learning_rate = schedule.rate(config, step)
    tokens = sum(part.num_tokens for part in parts)
    outcome = _Step(None, None, learning_rate, {}, tokens)
    if total == 0:
        return replace(outcome, skipped="no weight")
    mean = float(value) / total
    if not _finite(mean):
        return replace(outcome, skipped="loss")
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = optim.mean_and_clip(parameters, total, config.clip)
    if not _finite(norm):
        return replace(outcome, loss=mean, skipped="gradient")
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    figures = {name: figure / total for name, figure in sums.items()}
    return replace(outcome, loss=mean, grad_norm=norm, figures=figures)


def _after(progress: Progress, outcome: _Step, seconds: float) -> Progress:
    bad = outcome.skipped in ("loss", "gradient")
    return replace(
        progress,
        step=progress.step + 1,
        tokens=progress.tokens + outcome.tokens,
        skipped=progress.skipped + bad,
        bad_in_row=progress.bad_in_row + 1 if bad else 0,
        seconds=progress.seconds + seconds,
    )


def _record(step: int, outcome: _Step, progress: Progress) -> dict[str, Any]:
    """A line of metrics.jsonl. Steps count from 0, as in loader.rows."""
    record = {
        "step": step,
        "loss": outcome.loss,
        "grad_norm": outcome.grad_norm,
        "learning_rate": outcome.learning_rate,
        "tokens": progress.tokens,
        **{name: figure for name, figure in outcome.figures.items() if _finite(figure)},
    }
    if outcome.skipped:
        record["skipped"] = outcome.skipped
    return record


class _SaveClock:
    """When the next checkpoint is due: after `every` seconds, but never for more than SAVE_SHARE of the time.

    An interval of 0 saves after every step, whatever it costs.
    """

    def __init__(self, every: float):
        self._every, self.costs = every, []
        self._last = time.monotonic()

    def due(self) -> bool:
        cost = self.costs[-1] if self.costs and self._every else 0.0
        return time.monotonic() - self._last >= max(self._every, cost / SAVE_SHARE)

    def saved(self, cost: float) -> None:
        self.costs.append(cost)
        self._last = time.monotonic()


def _seed(seed: int, step: int) -> int:
    """63 bits out of (seed, step). Hashed, since torch's CPU generator reads the low 32 bits alone."""
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _flops(model: nn.Module, parts: list[Rows]) -> float:
    """Operations of a step (train/meter.py)."""
    per_token, per_key = flops_per_token(model)
    tokens = sum(part.num_tokens for part in parts)
    keys = sum(int((part.positions[part.segments > 0] + 1).sum()) for part in parts)
    return per_token * tokens + per_key * keys


def _finite(value: float) -> bool:
    return -float("inf") < value < float("inf")


def _environment(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": str(dtype).removeprefix("torch."),
    }


def _losses(path: Any, steps: int) -> dict[str, float | None]:
    """Mean loss of the first and of the last twentieth of the steps, out of the log."""
    with open(path, encoding="utf-8") as file:
        values = [json.loads(line)["loss"] for line in file]
    share = max(1, steps // 20)
    means = {}
    for name, part in (("loss_first", values[:share]), ("loss", values[-share:])):
        known = [value for value in part if value is not None]
        means[name] = sum(known) / len(known) if known else None
    return means


def _diverged(progress: Progress, outcome: _Step, checkpoints: Checkpoints) -> RecipeError:
    last, count = progress.step - 1, progress.bad_in_row
    good = [folder.name for folder in checkpoints.steps()]
    return RecipeError(
        f"{count} steps in a row had no finite {outcome.skipped}",
        where=f"steps {last - count + 1} to {last} (their places in the data as well)",
        wanted="a finite loss and gradient",
        got=f"learning rate {outcome.learning_rate:.3g}",
        do="lower learning_rate, lengthen warmup, or look at these rows; "
        + (f"{good[-1]} is saved" if good else "no checkpoint was written yet"),
    )
