"""The type of matrix products on a device."""

import torch

from endonym.core.errors import MachineError

BF16_WIDTH = 192
"""Narrower than this the casts cost what the products save: measured on two cores with avx512_bf16,
bf16 against float32 was 1.0x at width 128, 1.5x at 192, 1.8x at 256."""


def precision_of(wish: str, device: torch.device, width: int) -> torch.dtype:
    """The type of matrix products: what is wished, or for "auto" bf16 where it exists and pays.

    "float8" means bfloat16 here, around the layers that train/float8.py changes.
    """
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()
        has = any(features.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    if wish in ("bfloat16", "float8") and not has:
        raise MachineError(
            "this device has no bf16 arithmetic",
            where=device,
            do='set precision = "float32", or "auto"',
        )
    if wish == "float32" or (wish == "auto" and (not has or width < BF16_WIDTH)):
        return torch.float32
    return torch.bfloat16
