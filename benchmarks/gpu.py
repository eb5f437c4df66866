"""How much of a GPU's peak a training step uses: python -m benchmarks.gpu [--write FILE]

Packed rows of text-like documents, bfloat16, AdamW, train() as a user runs it: dense models of 100M,
350M and 1B parameters and one with experts, each as it is and compiled. MFU counts operations as
train/work.py does, the first steps left out. Without a GPU only --tiny runs (on the CPU, without MFU):
does it run at all?
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine
from endonym.core.artifact import write_atomic
from endonym.core.errors import EndonymError, MachineError

WARMUP, STEPS = 5, 15

SHAPES: dict[str, dict[str, Any]] = {
    "100M": dict(hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12),
    "350M": dict(hidden_size=1024, intermediate_size=2816, num_hidden_layers=24, num_attention_heads=16),
    "1B": dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=20, num_attention_heads=16),
    "350M, 8 experts of which 2": dict(
        hidden_size=1024, intermediate_size=2816, num_hidden_layers=12, num_attention_heads=16,
        experts={"count": 8, "chosen": 2, "width": 1408, "router": "sigmoid"},
    ),
}  # fmt: skip
TINY = {
    "tiny": dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a toy shape on the CPU")
    parser.add_argument("--rows", type=int, default=16, help="rows of 4096 tokens a step")
    parser.add_argument(
        "--rows-per-device", type=int, help="of one forward pass; default: what fits"
    )
    parser.add_argument("--only", default="", help="shapes whose name begins so")
    parser.add_argument("--write", type=Path, help="put the figures into this file as JSON")
    given = parser.parse_args(arguments)
    try:
        result = measure(given)
    except EndonymError as error:
        print(error, file=sys.stderr)
        return 1
    if given.write:
        write_atomic(given.write, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result, indent=1))
    return 0


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Figures of every shape, with and without compiling."""
    import torch

    if not given.tiny and not torch.cuda.is_available():
        raise MachineError("there is no GPU", do="--tiny tries the command on the CPU")
    device = "cpu" if given.tiny else "cuda"
    rows = []
    for name, shape in (TINY if given.tiny else SHAPES).items():
        if not name.startswith(given.only):
            continue
        for compiled in ("never", "always"):
            print(f"{name}, compile {compiled}", file=sys.stderr)
            rows.append({"shape": name, "compile": compiled, **one(shape, device, compiled, given)})
    gpu = None if given.tiny else torch.cuda.get_device_name()
    return {"machine": machine.describe(), "gpu": gpu, "rows": rows}


def one(
    shape: dict[str, Any], device: str, compiled: str, given: argparse.Namespace
) -> dict[str, Any]:
    """One run: parameters, tokens a second, MFU, peak memory; or the error that ended it."""
    import torch

    from endonym.core.console import Console
    from endonym.core.context import Context
    from endonym.model import hf
    from endonym.stages.training import BalanceConfig, NextTokens
    from endonym.train.config import TrainConfig
    from endonym.train.loop import train

    length, vocabulary = (64, 128) if given.tiny else (4096, 65536)
    sizes = {**shape, "vocab_size": vocabulary, "max_position_embeddings": length}
    model = hf.new(
        hf.ModelConfig.read({**sizes, "tie_word_embeddings": True}, "benchmarks"), seed=0
    )
    parameters = sum(weight.numel() for weight in model.parameters())
    steps = 4 if given.tiny else WARMUP + STEPS
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory(prefix="endonym-bench-") as scratch:
        context = Context(
            device=device,
            compile=compiled,
            rows_per_device=given.rows_per_device,
            checkpoint_seconds=1e9,
            scratch=Path(scratch),
            console=Console(quiet=True),
        )
        config = TrainConfig(steps=steps, learning_rate=1e-4, warmup=0, schedule="constant")
        loader = Texts(given.rows if not given.tiny else 2, length, vocabulary)
        try:
            train(model, NextTokens(BalanceConfig(), 0.0), loader, config, context)
        except EndonymError as error:
            return {"parameters": parameters, "error": str(error)}
        lines = (Path(scratch) / "timing.jsonl").read_text().splitlines()
    timing = [line for line in map(json.loads, lines) if "tokens_per_second" in line]
    timing = timing[len(timing) - (2 if given.tiny else STEPS) :]
    del model
    gc.collect()
    rates = [line["mfu"] for line in timing if "mfu" in line]
    return {
        "parameters": parameters,
        "tokens_per_second": statistics.median(line["tokens_per_second"] for line in timing),
        "mfu": statistics.median(rates) if rates else None,
        "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }


class Texts:
    """Rows full of documents of mixed length: log-normal around 600 tokens, as web text is."""

    identity = "documents of mixed length"

    def __init__(self, rows: int, length: int, vocabulary: int):
        self.shape, self.vocabulary = (rows, length), vocabulary

    def rows(self, step: int, part: tuple[int, int] = (0, 1)):
        """The rows of a step, or one part of them."""
        import torch

        from endonym.methods.batch import Rows

        draw = torch.Generator().manual_seed(step)
        rows, length = self.shape
        tokens = torch.randint(0, self.vocabulary, (rows, length + 1), generator=draw)
        segments, positions = (torch.zeros(self.shape, dtype=torch.long) for _ in range(2))
        weights = torch.ones(self.shape)
        middle = length * 600 / 4096
        for row in range(rows):
            at = segment = 0
            while at < length:
                segment += 1
                size = int(middle * torch.exp(torch.randn((), generator=draw)).clamp(0.05, 20)) + 1
                end = min(at + size, length)
                segments[row, at:end], positions[row, at:end] = segment, torch.arange(end - at)
                weights[row, end - 1] = 0
                at = end
        mine = slice(part[0] * rows // part[1], (part[0] + 1) * rows // part[1])
        whole = (tokens[:, :-1], tokens[:, 1:], weights, segments, positions)
        return Rows(*(each[mine].contiguous() for each in whole))


if __name__ == "__main__":
    sys.exit(main())
