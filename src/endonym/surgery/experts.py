"""A mixture of experts out of dense decoders: each MLP becomes N of them and a router.

Shapes: N experts, F inner width, D width.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, Self

import torch
from torch import Tensor

from endonym.core.errors import DataError, RecipeError
from endonym.model.config import ModelConfig
from endonym.model.decoder import Decoder
from endonym.model.experts import MoE
from endonym.surgery.graft import graft

SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers")
ROUTER, NOISE = 1 << 20, 1 << 21
"""What a stream of random numbers is for; below them, an expert's number."""


@torch.no_grad()
def to_experts(
    model: Decoder,
    others: Sequence[Decoder] | Literal["copies", "random"],
    chosen: int = 2,
    noise: float = 0.0,
    seed: int = 0,
    router_std: float = 0.02,
    *,
    count: int | None = None,
    first_dense: int = 0,
) -> Decoder:
    """A new decoder of the model's weights, with experts in the place of its MLPs.

    others: where the experts come from.
        decoders   one expert of each, in order. JAI-1, arXiv:2510.08620, section 3.2: expert 0 from step
                   0 and the rest from later snapshots of one training run, [at 0, at 2k, at 4k, at 6k],
                   which makes them alike and yet unlike. All other weights are the model's: that this
                   is the last snapshot is our reading.
        "copies"   `count` copies of the model's own MLP (Komatsuzaki et al., arXiv:2212.05055)
        "random"   the model's own MLP and count - 1 fresh ones, drawn as decoder.initialise draws

    noise: added to all experts but the first, normal, in units of each matrix's own deviation.
    router_std: of the router's normal weights; the paper gives none. 0 would make all scores equal, and
    then every token would choose the first `chosen` experts.
    first_dense: so many layers keep their MLP.

    A token chooses by softmax and the gates of its `chosen` experts sum to 1 (Mixtral, as JAI-1): experts
    that are all equal are the dense model. The draws depend on seed, layer and expert alone.
    """
    config = model.config
    if config.experts is not None:
        raise RecipeError("the model has experts already", got=f"{config.experts.count} a layer")
    if config.mlp_bias:
        raise RecipeError("experts have no biases, and this model's MLPs do", got="mlp_bias")
    given = isinstance(others, str)
    if given and others not in ("copies", "random"):
        raise RecipeError("there are no such experts", wanted='"copies" or "random"', got=others)
    if given == (count is None) or (not given and count not in (None, len(others))):
        raise RecipeError(
            "how many experts?", where="count",
            wanted="a number with copies or random, none with decoders", got=count,
        )  # fmt: skip
    sources = [model] * count if given else list(others)
    for each in sources:
        _check_like(each, model)
    if router_std <= 0 and chosen < len(sources):
        raise RecipeError(
            "without a router all tokens would choose the same experts", where="router_std",
            wanted="a number above 0", got=router_std,
        )  # fmt: skip
    settings = {
        "count": len(sources), "chosen": chosen, "width": config.intermediate_size,
        "router": "softmax", "renormalise": True, "first_dense": first_dense,
    }  # fmt: skip
    read = ModelConfig.read({**config.model_dump(), "experts": settings}, "the model with experts")

    def state(sparse: Decoder) -> dict[str, Tensor]:
        dense = model.state_dict()
        found = {name: dense[name].clone() for name in sparse.state_dict() if name in dense}
        for layer in range(first_dense, config.num_hidden_layers):
            mlps = [
                _Matrices.drawn(model, layer, number, seed)
                if others == "random" and number
                else _Matrices.of(each, layer)
                for number, each in enumerate(sources)
            ]
            mlps[1:] = [each.noised(noise, layer, n, seed) for n, each in enumerate(mlps[1:], 1)]
            at = f"model.layers.{layer}.mlp"
            found[f"{at}.experts.gate_up"] = torch.stack([torch.cat([e.gate, e.up]) for e in mlps])
            found[f"{at}.experts.down"] = torch.stack([each.down for each in mlps])
            stream = _stream(seed, layer, ROUTER)
            router = router_std * torch.randn(len(mlps), config.hidden_size, generator=stream)
            found[f"{at}.router.weight"] = router.to(mlps[0].up)
        return found

    return graft(model, read, state)


@dataclass(frozen=True)
class _Matrices:
    """One MLP: gate and up [F, D], down [D, F]."""

    gate: Tensor
    up: Tensor
    down: Tensor

    @classmethod
    def of(cls, model: Decoder, layer: int) -> Self:
        mlp = model.model.layers[layer].mlp
        return cls(mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight)

    @classmethod
    def drawn(cls, model: Decoder, layer: int, number: int, seed: int) -> Self:
        """As decoder.initialise: normal(0, 0.02), onto the residual stream divided by sqrt(2 L)."""
        stream, own = _stream(seed, layer, number), cls.of(model, layer)
        gate, up, down = (
            0.02 * torch.randn(each.shape, generator=stream)
            for each in (own.gate, own.up, own.down)
        )
        down /= (2 * model.config.num_hidden_layers) ** 0.5
        return cls(gate.to(own.gate), up.to(own.up), down.to(own.down))

    def noised(self, noise: float, layer: int, number: int, seed: int) -> Self:
        if not noise:
            return self
        stream = _stream(seed, layer, NOISE + number)

        def near(weight: Tensor) -> Tensor:
            drawn = torch.randn(weight.shape, generator=stream).to(weight.device)
            whole = weight.float()
            return (whole + noise * whole.std() * drawn).to(weight.dtype)

        return self.__class__(near(self.gate), near(self.up), near(self.down))


def _stream(seed: int, layer: int, number: int) -> torch.Generator:
    """A generator for one expert, router or noise of one layer."""
    digest = hashlib.sha256(f"{seed}.{layer}.{number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def _check_like(other: Decoder, model: Decoder) -> None:
    """Every expert comes from an MLP of the same place and shape."""
    one, two = model.config, other.config
    for field in SIZES:
        if getattr(one, field) != getattr(two, field):
            raise DataError(
                "an expert's decoder has other sizes than the model", where=field,
                wanted=getattr(one, field), got=getattr(two, field),
            )  # fmt: skip
    if two.experts is not None or two.mlp_bias:
        raise DataError(
            "an expert's decoder has no plain MLPs", wanted="a dense decoder, no mlp_bias"
        )


def likeness(model: Decoder) -> dict[int, float]:
    """By layer the mean cosine of two of its experts, all weights of one taken as a vector."""
    found = {}
    for layer, block in enumerate(model.model.layers):
        if not isinstance(block.mlp, MoE):
            continue
        weights = block.mlp.experts
        vectors = [
            torch.cat([up.flatten(), down.flatten()]).double()
            for up, down in zip(weights.gate_up.detach(), weights.down.detach(), strict=True)
        ]
        pairs = [torch.cosine_similarity(a, b, 0).item() for a, b in combinations(vectors, 2)]
        found[layer] = sum(pairs) / len(pairs) if pairs else 1.0
    return found
