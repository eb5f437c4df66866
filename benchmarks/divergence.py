"""Distillation's loss beside TRL's, from the same hidden states and heads: `python -m benchmarks.divergence`.

Both sides compute the divergence of the whole vocabulary and the gradients by the student's states and
head. TRL's arm makes the student's and the teacher's logits (the teacher's without gradient, as its
GKDTrainer does) and calls its own generalized_jsd_loss; ours is methods/divergence.kl. What counts is
processor time (the least of the rounds) and how much more than the inputs was resident at the peak;
losses and gradients are compared too. Only positions that are learnt are given, which TRL, unlike us,
does not sort out before it makes logits: with half of the positions masked its figures would double.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.__main__ import require_peers
from benchmarks.compare import Arm, compare, ratios, spread
from benchmarks.turns import Turns
from endonym.core.artifact import write_atomic
from endonym.core.errors import DataError

BETAS = (0.0, 0.5, 1.0)
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest relative difference of losses and norms: sums of V terms in another order; 8 bits."""


def run(shape: dict[str, int], beta: float, dtype: str, repeats: int, threads: int) -> dict:
    """One comparison: figures of each arm, ratios of TRL's to ours, and how far they differ."""
    spec = {**shape, "beta": beta, "dtype": dtype}
    ways = {"Endonym": "ours", "Endonym, chunk 512": "larger", "TRL": "trl"}
    arms = [Arm(name, f"benchmarks.divergence:{way}", spec) for name, way in ways.items()]
    note = lambda text: print(f"beta {beta}, {dtype}: {text}", file=sys.stderr)  # noqa: E731
    records = compare(arms, [{"key": "loss"}], repeats=repeats, threads=threads, note=note)
    ours, rows = records["Endonym"], []
    for name, one in records.items():
        rows.append(
            {
                "arm": name,
                "cpu_seconds": spread(one.cpu["loss"]),
                "extra_bytes": one.peak_bytes - one.ready["bytes"],
                "cpu_ratio": ratios(ours.cpu["loss"], one.cpu["loss"]),
                "least_cpu_ratio": min(one.cpu["loss"]) / min(ours.cpu["loss"]),
                "results": one.ready["results"],
            }
        )
    first = rows[0]["results"]
    difference = max(abs(a - b) / abs(a) for row in rows for a, b in zip(first, row["results"]))
    if not difference <= TOLERANCE[dtype]:
        raise DataError(
            "the arms compute different things", wanted=f"at most {TOLERANCE[dtype]}",
            got="; ".join(f"{row['arm']} {row['results']}" for row in rows),
        )  # fmt: skip
    for row in rows:
        row["extra_ratio"] = row["extra_bytes"] / rows[0]["extra_bytes"]
    return {"beta": beta, "dtype": dtype, **shape, "difference": difference, "rows": rows}


def ours(spec: dict[str, Any], turns: Turns, **settings: Any) -> None:
    from endonym.methods.divergence import kl

    def loss(student, head, teacher, teacher_head, weights):
        return kl(student, head, teacher, teacher_head, weights, spec["beta"], **settings).value

    _measure(spec, turns, loss)


def larger(spec: dict[str, Any], turns: Turns) -> None:
    ours(spec, turns, chunk=512)


def trl(spec: dict[str, Any], turns: Turns) -> None:
    import os

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

    import torch
    from trl.experimental.gkd import GKDTrainer

    def loss(student, head, teacher, teacher_head, weights):
        logits = (student @ head.t())[None]
        with torch.no_grad():
            teachers = (teacher @ teacher_head.t())[None]
        labels = torch.zeros(1, len(student), dtype=torch.int64)
        value = GKDTrainer.generalized_jsd_loss(logits, teachers, labels, beta=spec["beta"])
        return value * len(student)

    _measure(spec, turns, loss)


def _measure(spec: dict[str, Any], turns: Turns, loss) -> None:
    """Turns of forward and backward; before them one on a part of the tokens, which is compared."""
    import torch

    draw = torch.Generator().manual_seed(0)

    def states(rows: int, width: int, scale: float):
        return torch.randn(rows, width, generator=draw).mul_(scale)

    student, head = (
        states(spec["tokens"], spec["width"], 1.0),
        states(spec["vocab"], spec["width"], 0.05),
    )
    teacher = states(spec["tokens"], spec["teacher"], 1.0)
    teacher_head = states(spec["vocab"], spec["teacher"], 0.05)
    parts = [
        part.to(getattr(torch, spec["dtype"])) for part in (student, head, teacher, teacher_head)
    ]
    del student, head, teacher, teacher_head
    parts[0].requires_grad_(), parts[1].requires_grad_()
    weights = torch.ones(spec["tokens"])

    def step(count: int) -> list[float]:
        given = (parts[0][:count], parts[1], parts[2][:count], parts[3], weights[:count])
        value = loss(*given)
        value.backward()
        found = [value.item(), *(part.grad.float().norm().item() for part in parts[:2])]
        parts[0].grad = parts[1].grad = None
        return found

    results = step(32)
    _forget_the_peak()
    turns.ready(results=results, bytes=machine.peak_bytes())
    while True:
        turns.wait()
        step(spec["tokens"])
        turns.done()


def _forget_the_peak() -> None:
    """On Linux the peak begins anew at what is resident now; elsewhere set-up hides a part of it."""
    file = Path("/proc/self/clear_refs")
    if file.exists():
        file.write_text("5")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.divergence")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=65_536)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--teacher", type=int, default=384, help="the teacher's width")
    parser.add_argument("--betas", type=float, nargs="*", default=list(BETAS))
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path, help="the JSON file to write")
    given = parser.parse_args()
    require_peers(["trl"])
    shape = {name: getattr(given, name) for name in ("tokens", "vocab", "width", "teacher")}
    result = {
        "machine": machine.describe(),
        "losses": [
            run(shape, beta, given.dtype, given.repeats, given.threads) for beta in given.betas
        ],
        "load_after": machine.load(),
    }
    as_json = json.dumps(result, indent=1) + "\n"
    if given.write:
        write_atomic(given.write, as_json.encode())
    print(as_json, end="")


if __name__ == "__main__":
    main()
