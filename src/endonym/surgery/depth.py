"""A deeper decoder out of a trained one: depth up-scaling by repeated layers.

A plan is pure: which layer of the base stands where, and which layers get a skip. deepen() then copies
the weights. Layers are counted from 0, as their names are; JAI-1's table counts from 1.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from endonym.core.errors import RecipeError
from endonym.model.config import ModelConfig
from endonym.model.decoder import Decoder
from endonym.surgery.graft import graft

Skips = list[tuple[int, int]]
SKIP = "model.skip_alpha."


def plan_v1(layers: int, keep: int) -> list[int]:
    """The first `keep` layers and then the last `keep`: 2 keep layers out of `layers`.

    SOLAR 10.7B, arXiv:2312.15166, section 2: of 32 layers 24 and 24 make 48; JAI-1 tried 32 and 32 of 40
    (arXiv:2510.08620, section 3.1.2). keep = layers / 2 is the base itself.
    """
    if not layers <= 2 * keep <= 2 * layers:
        raise RecipeError(
            "the first and the last layers would leave some out, or are more than there are",
            where="keep",
            wanted=f"{-(-layers // 2)} to {layers} of {layers} layers",
            got=keep,
        )
    return [*range(keep), *range(layers - keep, layers)]


def plan_v2(layers: int, block: int, copies: Sequence[int]) -> tuple[list[int], Skips]:
    """Blocks of `block` layers repeated in place, and a skip into each repetition.

        Out_{n,(d)} = Block_n( x + alpha_{n,(d)} Out_{n-1,(max d)} ),   alpha_{n,(1)} = 0

    JAI-1, arXiv:2510.08620, section 3.1.2. x: what the layer before gives, Out_{n,(d-1)} for a repetition.
    The paper does not say in which order the repetitions stand, nor what alpha is: in place, one after
    the other, and a number for each repetition are our reading. Out_0 is the embedding.

    copies: how often block n stands in the result, 1 for as it was.
    Returns the base layer at each place, and (place, place of the skip's source) for each repetition,
    source -1 being the embedding: what ModelConfig.skips takes.
    """
    if block < 1 or layers % block or len(copies) * block != layers or min(copies) < 1:
        raise RecipeError(
            "the copies do not fit the layers",
            where="copies",
            wanted=f"a number above 0 for each block of {block} of {layers} layers",
            got=list(copies),
        )
    sources: list[int] = []
    skips: Skips = []
    before = -1  # where the last copy of the previous block ends
    for number, times in enumerate(copies):
        for repetition in range(times):
            if repetition:
                skips.append((len(sources), before))
            sources += range(number * block, (number + 1) * block)
        before = len(sources) - 1
    return sources, skips


@torch.no_grad()
def deepen(
    model: Decoder,
    sources: Sequence[int],
    skips: Sequence[tuple[int, int]] = (),
    alpha: float = 0.0,
    learned: bool = True,
) -> Decoder:
    """A new decoder whose layer i is a copy of the model's layer sources[i].

    skips, alpha, learned: as in ModelConfig; each skip has an alpha of its own. alpha = 0 is plain
    repetition; 1 adds a whole residual stream, which about doubles it. The paper gives no value.

    Copies, not ties: each learns for itself. Everything that is not a layer (embedding, norm, head, MTP
    modules) is copied as it is, types and devices too; `model` is left alone. Layers of another kind (a
    window, a dense MLP before experts) keep their kind, so that with sources 0, 1, 2 .. nothing changes.
    """
    config = model.config
    if config.skips:
        raise RecipeError("the model has skips already, which repetition would lead elsewhere")
    if stray := [each for each in sources if not 0 <= each < config.num_hidden_layers]:
        raise RecipeError(
            "a layer to copy is not there", where="sources",
            wanted=f"0 to {config.num_hidden_layers - 1}", got=stray[:8],
        )  # fmt: skip
    if not sources:
        raise RecipeError("a decoder without layers", where="sources")
    update = {
        "num_hidden_layers": len(sources),
        "skips": list(skips),
        "skip_alpha": float(alpha),
        "skip_learned": learned,
    }
    if config.layer_types is not None:
        update["layer_types"] = [config.layer_types[each] for each in sources]
    if config.experts is not None:
        moe = [config.is_moe(each) for each in sources]
        if any(one and not after for one, after in pairwise(moe)):
            raise RecipeError(
                "a dense layer would stand after one with experts, which no configuration can say",
                where="sources", got=list(sources), do="repeat the dense layers first or not at all",
            )  # fmt: skip
    fields = {**config.model_dump(), **update}
    if config.experts is not None:
        fields["experts"] = {**config.experts.model_dump(), "first_dense": moe.count(False)}

    def origin(name: str) -> str:
        parts = name.split(".")
        if parts[:2] == ["model", "layers"]:
            parts[2] = str(sources[int(parts[2])])
        return ".".join(parts)

    def state(deeper: Decoder) -> dict[str, Tensor]:
        weights, like = model.state_dict(), model.model.embed_tokens.weight
        return {
            name: torch.full((), float(alpha), dtype=like.dtype, device=like.device)
            if name.startswith(SKIP)
            else weights[origin(name)].clone()
            for name in deeper.state_dict()
        }

    return graft(model, ModelConfig.read(fields, "the deeper decoder"), state, origin)
