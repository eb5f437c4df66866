"""Floating-point operations of a training step, and the peak of the device they run on.

    6 N tokens + 12 A sum_layers sum_t keys(t)          forward and backward

N: active parameters that multiply activations (the embedding table only where it is the head too), A:
heads x head size, keys(t): tokens that token t attends to in that layer, itself included, so packing,
the causal mask and sliding windows are in it. As in model/budget.flops_per_token, whose N it is. Norms,
activations and the recomputation of checkpointed layers are not counted, nor the work that frozen
weights beside an adapter save. MFU = work / (seconds x peak of the device).

Of a model of transformers' own all parameters but the table count, experts that a token does not pass
among them, and every layer as one without a window.
"""

import torch
from torch import nn

from endonym.methods.batch import Rows
from endonym.model import budget
from endonym.model.config import ModelConfig

# Dense bf16 operations per second, from NVIDIA's data sheets of the SXM parts. Others: no MFU.
PEAKS = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}


class Work:
    """per_token: operations of a token, attention left out. mtp: the loss of MTP modules is trained."""

    def __init__(self, model: nn.Module, mtp: bool = False):
        config = model.config
        heads = getattr(config, "num_attention_heads", 1)
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        layers = getattr(config, "num_hidden_layers", 0)
        self._per_key = 12.0 * heads * size
        if isinstance(config, ModelConfig):
            self.per_token = 6.0 * budget.products(config, mtp=mtp)
            layers += config.mtp_modules if mtp else 0
            self._windows = [
                config.sliding_window if config.is_sliding(layer) else None
                for layer in range(layers)
            ]
        else:
            self.per_token = 6.0 * _multiplying(model)
            self._windows = [None] * layers

    def of(self, parts: list[Rows]) -> float:
        """Operations of a step over these rows."""
        total = 0.0
        for rows in parts:
            keys = rows.positions[rows.segments > 0] + 1
            total += self.per_token * len(keys)
            for window in set(self._windows):
                seen = keys if window is None else keys.clamp(max=window)
                total += self._per_key * self._windows.count(window) * int(seen.sum())
        return total


def peak(device: torch.device, precision: torch.dtype) -> float | None:
    """Peak operations per second of a device in bf16, where it is known."""
    if device.type != "cuda" or precision != torch.bfloat16:
        return None
    return PEAKS.get(torch.cuda.get_device_name(device))


def _multiplying(model: nn.Module) -> int:
    tables = {
        id(parameter): parameter.numel()
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    total = sum(parameter.numel() for parameter in model.parameters())
    tied = getattr(model.config, "tie_word_embeddings", False)
    return total if tied else total - sum(tables.values())
