"""What a run writes down: metrics.jsonl (exact), timing.jsonl (clock), TensorBoard events.

metrics.jsonl holds one object a step, with deterministic fields only, so that the log of a run that
was killed and resumed is bitwise that of one that was not. Seconds and rates stand in timing.jsonl,
where a step that was done twice appears twice. TensorBoard shows both, under <scratch>/tensorboard.

Work of one step, forward and backward, in floating-point operations:

    6 N tokens + 12 L A sum_t keys(t)

N: parameters that multiply activations (the embedding table only where it is the head too), L:
layers, A: heads x head size, keys(t): tokens that token t attends to, itself included, so packing and
the causal mask are in it. The first term is arXiv:2001.08361, section 2.1 (C = 6 N D); the second
counts the two products of attention (2 A keys each, times 3 for the backward pass). Norms,
activations and the recomputation of checkpointed layers are not counted.
MFU = work / (seconds x peak of the device).
"""

import errno
import hashlib
import json
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from endonym.core.artifact import machine_error
from endonym.model.experts import MoE

# Dense bf16 operations per second, from NVIDIA's data sheets of the SXM parts. Others: no MFU.
PEAKS = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}


class Meter:
    """The three logs of one run, opened at the place where a checkpoint left them."""

    def __init__(self, scratch: Path, step: int, metrics_bytes: int):
        self.path = scratch / "metrics.jsonl"
        self._timing_path = scratch / "timing.jsonl"
        scratch.mkdir(parents=True, exist_ok=True)
        self._metrics = _open_at(self.path, metrics_bytes)
        self._timing = FileIO(self._timing_path, "a")
        self._digest = hashlib.sha256()
        with open(self.path, "rb") as file:
            while metrics_bytes and (block := file.read(min(metrics_bytes, 1 << 20))):
                self._digest.update(block)
                metrics_bytes -= len(block)
        from torch.utils.tensorboard import SummaryWriter  # 0.2 s, and only a run needs it

        self._board = SummaryWriter(str(scratch / "tensorboard"), purge_step=step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        self._timing.close()
        with suppress(OSError):  # a full disk; metrics.jsonl has said so, or holds the same values
            self._board.close()

    def step(self, record: dict[str, Any], timing: dict[str, Any]) -> None:
        """One step's exact figures and its times. MachineError where the disk is full."""
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        _append(self._metrics, line, self.path)
        self._digest.update(line)
        self.timing(timing)
        try:
            for name, value in {**record, **timing}.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(f"train/{name}", value, record["step"])
        except OSError as error:  # from an earlier write: TensorBoard's run in a thread
            raise machine_error(error, self.path.with_name("tensorboard")) from error

    def timing(self, record: dict[str, Any]) -> None:
        """A line of timing.jsonl alone, such as the cost of a save."""
        _append(self._timing, (json.dumps(record) + "\n").encode(), self._timing_path)

    def position(self) -> tuple[int, str]:
        """Bytes of metrics.jsonl and their sha256, once they are on the disk."""
        os.fsync(self._metrics.fileno())
        return self._metrics.tell(), self._digest.hexdigest()


def flops_per_token(model: nn.Module) -> tuple[float, float]:
    """(operations per token, operations per attended key): the two terms of the head of this file."""
    config = model.config
    tables = {
        id(parameter): parameter.numel()
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    total = sum(parameter.numel() for parameter in model.parameters())
    tied = getattr(config, "tie_word_embeddings", False)
    products = total if tied else total - sum(tables.values())
    for module in model.modules():
        if isinstance(module, MoE):  # a token passes K of N experts
            share = 1 - module.router.experts.chosen / module.router.experts.count
            products -= share * sum(p.numel() for p in module.experts.parameters())
    heads = getattr(config, "num_attention_heads", 1)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 6.0 * products, 12.0 * getattr(config, "num_hidden_layers", 0) * heads * size


def peak(device: torch.device, precision: torch.dtype) -> float | None:
    """Peak operations per second of a device in bf16, where it is known."""
    if device.type != "cuda" or precision != torch.bfloat16:
        return None
    return PEAKS.get(torch.cuda.get_device_name(device))


def _open_at(path: Path, length: int) -> FileIO:
    """The file cut to `length` bytes and opened for appending, without a buffer."""
    file = FileIO(path, "a")
    if path.stat().st_size != length:
        file.truncate(length)
    file.seek(length)
    return file


def _append(file: FileIO, line: bytes, path: Path) -> None:
    try:
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "a part of a line was written")
    except OSError as error:
        raise machine_error(error, path, len(line)) from error
