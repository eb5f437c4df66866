"""The products of the blocks' linear layers in eight bits, forward and backward, by torchao.

    y = s_x s_w (x / s_x)_8 (w / s_w)_8        s = max |tensor| / max of the format, taken anew each time

Activations and weights are e4m3, gradients e5m2 (arXiv:2209.05433); one scale a tensor, torchao's
"tensorwise" recipe. Weights, optimizer and what is saved stay float32, and everything else is
computed in bfloat16. K-EXAONE is trained in FP8 (arXiv:2601.01739) and states no recipe.

Covered are the hidden linear layers (train/layers.py) whose sides 16 divides, which the kernels want.
Not the head, the routers, or the experts' stacks, which torchao's stable part does not cover. Without
torch.compile the casts cost what the products save: run it with compile = "auto" or "always".
"""

import torch
from torch import nn

from endonym.core.errors import MachineError, RecipeError
from endonym.lang.extras import need
from endonym.train.layers import hidden_layers

HOPPER = (9, 0)
"""CUDA's number of the first devices whose fast kernels these are."""


def convert(model: nn.Module, device: torch.device, emulate: bool = False) -> int:
    """Makes the covered layers multiply in eight bits, in place; how many there are.

    The parameters stay the same objects under the same names. emulate: the arithmetic is imitated in
    float32, as tests do on a CPU. MachineError where the device has no such products, RecipeError
    where nothing is covered or an adapter stands beside the layers.
    """
    if not emulate:
        _refuse_without_kernels(device)
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


def _refuse_without_kernels(device: torch.device) -> None:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= HOPPER:
        return
    got = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    raise MachineError(
        "this device has no products in eight bits",
        where='precision = "float8"',
        wanted="an NVIDIA GPU of the Hopper generation (H100) or newer",
        got=got,
        do='set precision = "bfloat16", or "auto"',
    )
