"""Which linear layers of a model are its hidden ones: those for Muon, LoRA, four and eight bits."""

from collections.abc import Iterator

from torch import nn


def hidden_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear layers by name, in the model's order: not the head, nor routers, nor layers of one
    row or column. Experts are stacks of matrices (model/experts.py) and no linear layers."""
    head = getattr(model, "head", None)
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or module.weight is head or _routes(name):
            continue
        if min(module.in_features, module.out_features) > 1:
            yield name, module


def _routes(name: str) -> bool:
    """transformers' routers are linear layers called gate or router."""
    return name.endswith(("gate", "router"))
