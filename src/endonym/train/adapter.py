"""LoRA: small matrices that learn beside the frozen ones, by PEFT.

    y = W x + (alpha / r) B A dropout(x)          arXiv:2106.09685, section 4.1;  A: [r, in], B: [out, r]

B starts at zero, so the first forward pass is the base model's. QLoRA (arXiv:2305.14314) is the same
with W of the hidden linear layers in four bits (NF4, its scales quantised too), by bitsandbytes.

Covered are linear layers. The experts of a mixture are stacks of matrices and no linear layers: they,
the routers, the embeddings and the loss's head stay as they are, frozen and whole; with experts,
"all-linear" is attention and the shared experts. The score head of a reward model is new and learns.

At the end the product is added to W (merge_into), so that the artifact is an ordinary folder, and the
adapter lies beside it in PEFT's format (save_adapter), with the names of the transformers class that
hf.save writes. Where that class has one matrix for several of ours (Phi-3's qkv_proj), the adapters
of ours become one of as many times the rank:

    [B_q A_q ; B_k A_k] = diag(B_q, B_k) [A_q ; A_k]
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from endonym.core.errors import MachineError, RecipeError
from endonym.lang.extras import need
from endonym.model.decoder import Decoder
from endonym.model.families import Layout, layout
from endonym.model.to_hub import config_to, own_config
from endonym.train.config import Adapter
from endonym.train.layers import hidden_layers

NAME = "default"
"""PEFT's name of an adapter that has none."""

BLOCK = 64
"""Weights of four bits that share a scale."""

FOLDER = "adapter"
"""Where in a model's folder its adapter lies."""


def attach(model: nn.Module, adapter: Adapter, seed: int = 0) -> None:
    """Puts the adapter's matrices beside those it names and freezes everything else, in place.

    A is drawn from `seed` alone. The dropout draws from torch's generator, which the loop seeds anew
    at every step, so a resumed run draws the same. Frozen weights never change, so they are not part
    of a checkpoint (train/state.py).

    Errors: RecipeError where a target is no linear layer of the model, MachineError where PEFT or, for
    four bits, bitsandbytes is not installed.
    """
    peft = need("peft", "lora", "an adapter")
    root = _root(model)
    names = [name for name, _ in hidden_layers(model) if not name.startswith("mtp.")]
    targets = _chosen([_below(model, name) for name in names], adapter.targets)
    if adapter.method == "qlora":
        _to_four_bits(root, [_below(model, name) for name, _ in hidden_layers(model)])
    config = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        bias=adapter.bias,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, root, NAME)
    score = getattr(root, "score", None)
    if score is not None:
        score.requires_grad_(True)


@torch.no_grad()
def merge_into(model: nn.Module) -> None:
    """W <- W + (alpha / r) B A in place; the model then has its plain layers and names again.

    Weights of four bits become what they stood for, in the dtype that they had, before the sum: that
    is the model that was trained, where four bits of the sum would be another one.
    """
    for parent, name, layer in _changed(model):
        setattr(parent, name, _merged_layer(layer, in_place=True))
    del _root(model).peft_config  # transformers would save the model as an adapter


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Inside, the model is what merge_into() would make of it; after it, bitwise what it was.

    For an export on the way. Takes the room of a second copy of the layers with adapters: taking the
    product off again would leave W rounded differently, and a resumed run would go another way.
    """
    with torch.no_grad():
        places = [(*place, _merged_layer(place[2], in_place=False)) for place in _changed(model)]
    for parent, name, _, plain in places:
        setattr(parent, name, plain)
    try:
        yield
    finally:
        for parent, name, layer, _ in places:
            setattr(parent, name, layer)


@torch.no_grad()
def save_adapter(model: nn.Module, folder: Path, family: str | None = None) -> None:
    """adapter_model.safetensors and adapter_config.json, for PEFT over the base as hf.save writes it.

    family: as in hf.save. To be called before the model is merged.
    """
    peft = need("peft", "lora", "an adapter")
    root = _root(model)
    config = root.peft_config[NAME]
    found = {name: layer for name, layer in root.named_modules() if _is_adapted(layer)}
    plan = _layout(model, root, family)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for theirs, parts in plan.items():
        ours = [found.get(part.name.removesuffix(".weight")) for part in parts]
        if not theirs.endswith(".weight") or not any(ours):
            continue
        name = theirs.removesuffix(".weight")
        rows = [part.rows for part in parts]
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = _joined(ours, rows)
        ranks[name] = len(tensors[f"{name}.lora_A.weight"])
    tensors |= _others(root, plan, ranks)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"base_model.model.{name}": each.contiguous().cpu() for name, each in tensors.items()},
        folder / "adapter_model.safetensors",
        {"format": "pt"},
    )
    wide = {name: rank for name, rank in ranks.items() if rank != config.r}
    score = hasattr(root, "score")
    by_weight = {name for name in ranks if _taken_for_experts(root, name)}
    peft.LoraConfig(
        task_type="SEQ_CLS" if score else "CAUSAL_LM",
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0 if by_weight else config.lora_dropout,
        target_modules=sorted(ranks.keys() - by_weight),
        target_parameters=[f"{name}.weight" for name in sorted(by_weight)] or None,
        rank_pattern=wide,
        alpha_pattern={name: config.lora_alpha * rank / config.r for name, rank in wide.items()},
        modules_to_save=["score"] if score else None,
        bias=config.bias,
        inference_mode=True,
    ).save_pretrained(folder)


def _taken_for_experts(root: nn.Module, name: str) -> bool:
    """Whether PEFT would look for an adapter of every expert where this layer is named as its target:
    in models with experts it does so for any layer of these names, dense or shared. Named by its
    weight, it is left alone; PEFT then wants no dropout, which an adapter that has learned needs not.
    """
    with_experts = any(each.ndim == 3 for each in root.parameters())
    return with_experts and name.endswith(("gate_proj", "up_proj", "down_proj"))


def _root(model: nn.Module) -> nn.Module:
    """The module whose names are those of the folder: a foreign model's is one further in."""
    return model if isinstance(model, Decoder) else model.module


def _below(model: nn.Module, name: str) -> str:
    return name if isinstance(model, Decoder) else name.removeprefix("module.")


def _chosen(names: list[str], targets: list[str]) -> list[str]:
    """The full names of the layers that are meant."""
    if targets == ["all-linear"]:
        return names
    for target in targets:
        if not any(_is_called(name, target) for name in names):
            known = sorted({name.rpartition(".")[2] for name in names})
            raise RecipeError(
                f"the model has no hidden linear layer called {target}",
                where="adapter.targets",
                wanted=f"all-linear alone, or some of {', '.join(known)}",
                do="experts, routers, embeddings and the head take no adapter",
            )
    return [name for name in names if any(_is_called(name, target) for target in targets)]


def _is_called(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _to_four_bits(root: nn.Module, names: list[str]) -> None:
    try:
        bnb = need("bitsandbytes", "gpu", "weights in four bits")
    except (OSError, RuntimeError) as error:
        raise MachineError(
            "bitsandbytes does not load on this machine", got=error, do='set method = "lora"'
        ) from error
    for name in names:
        plain = root.get_submodule(name)
        if plain.in_features % BLOCK:
            # Seen with bitsandbytes 0.50: the CPU then reads back other numbers, without a word.
            raise RecipeError(
                "bitsandbytes keeps this layer's weights wrongly in four bits",
                where=name,
                wanted=f"a number of inputs that {BLOCK} divides",
                got=plain.in_features,
                do='set method = "lora"',
            )
        layer = bnb.nn.Linear4bit(
            plain.in_features,
            plain.out_features,
            bias=plain.bias is not None,
            quant_type="nf4",
            compress_statistics=True,
            device="meta",
        )
        layer.weight = bnb.nn.Params4bit(
            plain.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
        ).to(plain.weight.device)
        layer.bias = plain.bias
        parent, _, last = name.rpartition(".")
        setattr(root.get_submodule(parent), last, layer)


def _is_adapted(module: nn.Module) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")


def _changed(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """(parent, name in it, layer) of every layer with an adapter, or of four bits without one."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if _is_adapted(child) or (_is_of_four_bits(child) and not _is_adapted(parent))
    ]


def _is_of_four_bits(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and hasattr(module.weight, "quant_state")


def _merged_layer(layer: nn.Module, in_place: bool) -> nn.Linear:
    base, delta = layer, torch.zeros(())
    if _is_adapted(layer):
        base, delta = layer.get_base_layer(), layer.get_delta_weight(NAME)
    if _is_of_four_bits(base):
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(base.weight.data, base.weight.quant_state)
        weight += delta
    elif in_place:
        base.weight += delta
        return base
    else:
        weight = base.weight + delta
    plain = nn.Linear(
        base.in_features, base.out_features, bias=base.bias is not None, device="meta"
    )
    plain.weight = nn.Parameter(weight, requires_grad=False)
    plain.bias = base.bias
    return plain


def _layout(model: nn.Module, root: nn.Module, family: str | None) -> Layout:
    """Their tensors as stretches of ours, under our plain names."""
    shapes = {}
    for name, each in root.named_parameters():
        if ".lora_" in name:
            continue
        layer = root.get_submodule(name.rpartition(".")[0])
        shape = each.shape
        if name.endswith(".weight") and isinstance(layer, nn.Linear):  # four bits lie flat
            shape = torch.Size([layer.out_features, layer.in_features])
        shapes[name.replace(".base_layer.", ".")] = shape
    if not isinstance(model, Decoder):
        return layout(None, "", shapes)
    try:
        raw = config_to(model.config, family or getattr(model, "family", None))
    except RecipeError:
        raw = own_config(model.config)
    return layout(model.config, raw["model_type"], shapes)


def _joined(layers: list[nn.Module | None], rows: list[int]) -> tuple[Tensor, Tensor]:
    """A and B of one matrix that lies where several of ours lie one behind the other."""
    pairs = [
        None if layer is None else (layer.lora_A[NAME].weight, layer.lora_B[NAME].weight)
        for layer in layers
    ]
    down = torch.cat([pair[0] for pair in pairs if pair])
    up = down.new_zeros(sum(rows), len(down))
    top = left = 0
    for pair, height in zip(pairs, rows):
        if pair:
            up[top : top + height, left : left + len(pair[0])] = pair[1]
            left += len(pair[0])
        top += height
    return down, up


def _others(root: nn.Module, plan: Layout, targets: dict[str, int]) -> dict[str, Tensor]:
    """What else has learned: biases, and the score head of a reward model."""
    learned = {
        name.replace(".base_layer.", "."): each
        for name, each in root.named_parameters()
        if each.requires_grad and ".lora_" not in name
    }
    found = {}
    for theirs, parts in plan.items():
        if not all(part.name in learned for part in parts):
            continue
        module, _, last = theirs.rpartition(".")
        name = f"{module}.base_layer.{last}" if module in targets else theirs
        found[name] = torch.cat([learned[part.name] for part in parts])
    return found
