"""The precision of matrix products: in which type a device takes them, and the blocks' in eight bits.

Weights, optimizer and what is saved stay float32 whatever it is; bfloat16 is autocast's.

float8, by torchao:

    y = s_x s_w (x / s_x)_8 (w / s_w)_8        s = max |tensor| / max of the format, taken anew each time

Activations and weights are e4m3, gradients e5m2 (arXiv:2209.05433); one scale a tensor, torchao's
"tensorwise" recipe; everything else is computed in bfloat16. K-EXAONE is trained in FP8
(arXiv:2601.01739) and states no recipe.

Covered are the hidden linear layers (train/layers.py) whose sides 16 divides, which the kernels want.
Not the head, the routers, or the experts' stacks, which torchao's stable part does not cover. Without
torch.compile the casts cost what the products save: run it with compile = "auto" or "always".
"""

import torch
from torch import nn

from endonym.core.errors import MachineError, RecipeError
from endonym.lang.extras import need
from endonym.train.layers import hidden_layers

BF16_WIDTH = 192
"""Narrower than this the casts cost what the products save: measured on two cores with avx512_bf16,
bf16 against float32 was 1.0x at width 128, 1.5x at 192, 1.8x at 256."""

HOPPER = (9, 0)
"""CUDA's number of the first devices with fast kernels in eight bits."""


def precision_of(wish: str, device: torch.device, width: int) -> torch.dtype:
    """The type of matrix products: what is wished, or for "auto" bf16 where it exists and pays.

    "float8" means bfloat16 here, around the layers that convert() changes. MachineError where the
    device has not what is wished.
    """
    cuda = device.type == "cuda"
    if wish == "float8":
        if not cuda or torch.cuda.get_device_capability(device) < HOPPER:
            raise _lacking(wish, device, "an NVIDIA GPU of the Hopper generation (H100) or newer")
        return torch.bfloat16
    if cuda:
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()
        has = any(features.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    if wish == "bfloat16" and not has:
        raise _lacking(wish, device, "a device with bf16 arithmetic")
    if wish == "float32" or (wish == "auto" and (not has or width < BF16_WIDTH)):
        return torch.float32
    return torch.bfloat16


def _lacking(wish: str, device: torch.device, wanted: str) -> MachineError:
    cuda = device.type == "cuda"
    return MachineError(
        f"this device has no products in {wish}",
        where=f'precision = "{wish}"',
        wanted=wanted,
        got=torch.cuda.get_device_name(device) if cuda else device.type,
        do='set precision = "auto", which takes the best that it has',
    )


def convert(model: nn.Module, emulate: bool = False) -> int:
    """Makes the covered layers multiply in eight bits, in place; how many there are.

    The parameters stay the same objects under the same names. emulate: the arithmetic is imitated in
    float32, as tests do on a CPU. RecipeError where nothing is covered or an adapter stands beside the
    layers.
    """
    if hasattr(model, "peft_config") or hasattr(getattr(model, "module", None), "peft_config"):
        raise RecipeError(
            "an adapter and products in eight bits do not go together",
            where='precision = "float8" and adapter',
            do='set precision = "bfloat16"',
        )
    names = {name for name, layer in hidden_layers(model) if _fits(layer)}
    if not names:
        raise RecipeError(
            "no layer's sides are multiples of 16",
            where='precision = "float8"',
            wanted="hidden_size and intermediate_size that 16 divides",
            do='set precision = "bfloat16"',
        )
    torchao = need("torchao.float8", "gpu", "products in eight bits")
    torchao.convert_to_float8_training(
        model,
        module_filter_fn=lambda layer, name: name in names,
        # Of the gradient of a weight the inner side is the tokens, whose number 16 need not divide.
        config=torchao.Float8LinearConfig(emulate=emulate, pad_inner_dim=True),
    )
    return len(names)


def revert(model: nn.Module) -> None:
    """Plain linear layers again, with the same parameters: what is measured and saved afterwards."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer).__name__ == "Float8Linear":
                with torch.device("meta"):
                    plain = nn.Linear(layer.in_features, layer.out_features, bias=False)
                plain.weight, plain.bias = layer.weight, layer.bias
                plain.train(layer.training)
                setattr(parent, name, plain)


def _fits(layer: nn.Linear) -> bool:
    return layer.in_features % 16 == 0 and layer.out_features % 16 == 0
