"""Where the time of a training step goes: python -m benchmarks.profile [--write FILE]

For each shape one step of pre-training (8 packed rows of 512 tokens, float32, one thread; forward,
backward, clipping, AdamW): its time, its operations a second beside the machine's peak in matrix
products, measured here on a product of 2048 x 2048 matrices, and the shares of what it does, from torch's
profiler.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine, material
from endonym.core.artifact import write_atomic

PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::addmm_"),
    "attention": ("aten::_scaled_dot_product",),
    "optimizer and clipping": ("aten::_fused_adamw_", "aten::_foreach", "aten::linalg_vector_norm"),
    "exponentials": ("aten::exp", "aten::amax", "aten::sum", "aten::silu", "aten::log"),
    "moving": ("aten::copy_", "aten::index", "aten::cat", "aten::gather", "aten::scatter", "aten::fill_"),
}  # fmt: skip
"""Operations by the beginning of their name; what none of them names is the rest."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--shapes", nargs="*", default=["3M 16k", "3M 64k", "10M 16k", "30M 16k"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--write", type=Path, help="put the figures into this file as JSON")
    given = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    result = {"machine": machine.describe(), "rows": [one(n, given.steps) for n in given.shapes]}
    if given.write:
        write_atomic(given.write, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result, indent=1))
    return 0


def one(name: str, steps: int) -> dict[str, Any]:
    """The figures of one shape: seconds, operations a second, shares."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from endonym.stages.training import BalanceConfig, NextTokens
    from endonym.train import optim
    from endonym.train.config import TrainConfig

    model, rows = _model(name), _rows()
    optimizer = optim.build(model, TrainConfig(steps=1, learning_rate=1e-4))
    objective = NextTokens(BalanceConfig(), 0.0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = objective(model, rows)
        loss.value.backward()
        optim.mean_and_clip(list(model.parameters()), float(loss.weight), 1.0)
        optimizer.step()

    step()
    taken = []
    for _ in range(steps):
        began = time.process_time()
        step()
        taken.append(time.process_time() - began)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    spent = {part: 0.0 for part in (*PARTS, "the rest")}
    for event in seen.key_averages():
        part = next((p for p, names in PARTS.items() if event.key.startswith(names)), "the rest")
        spent[part] += event.self_cpu_time_total
    whole = sum(spent.values())
    operations = _operations(model, rows)
    best = min(taken)
    return {
        "shape": name,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "tokens_per_cpu_second": {
            "median": rows.num_tokens / median(taken),
            "best": rows.num_tokens / best,
        },
        "operations_per_second": operations / best,
        "peak_operations_per_second": _peak(torch),
        "shares": {part: time_ / whole for part, time_ in spent.items()},
    }


def _model(name: str) -> Any:
    from dataclasses import asdict

    from endonym.model import hf

    shape = material.SHAPES[name]
    fields = {key: value for key, value in asdict(shape).items() if key not in ("name", "family")}
    config = {**fields, "head_dim": shape.hidden_size // shape.num_attention_heads}
    config |= {"tie_word_embeddings": True, "max_position_embeddings": 2048}
    return hf.new(hf.ModelConfig.read(config, "benchmarks"), seed=0).train()


def _rows() -> Any:
    """Three documents in every row."""
    import torch

    from endonym.methods.batch import Rows

    tokens = torch.randint(0, 1000, (8, 512), generator=torch.Generator().manual_seed(0))
    lengths = [200, 130, 182]
    segments = torch.repeat_interleave(torch.arange(1, 4), torch.tensor(lengths)).expand(8, 512)
    positions = torch.cat([torch.arange(length) for length in lengths]).expand(8, 512)
    return Rows(tokens, tokens.roll(-1, 1), torch.ones(8, 512), segments, positions)


def _operations(model: Any, rows: Any) -> float:
    from endonym.train.work import Work

    return Work(model).of([rows])


def _peak(torch: Any, size: int = 2048) -> float:
    one, other = torch.randn(size, size), torch.randn(size, size)
    torch.mm(one, other)
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        torch.mm(one, other)
        best = min(best, time.process_time() - began)
    return 2 * size**3 / best


if __name__ == "__main__":
    sys.exit(main())
