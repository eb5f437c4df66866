"""A larger vocabulary for a trained model: the old rows untouched, the new ones from their pieces.

Shapes: V vocabulary, D width.
"""

import torch
from torch import Tensor, nn

from endonym.core.errors import DataError, RecipeError
from endonym.model.checkpoint import CausalLM
from endonym.model.decoder import Decoder

INITS = ("mean", "random", "zero")


@torch.no_grad()
def grow_rows(
    model: CausalLM,
    pieces: dict[int, list[int]],
    vocab_size: int,
    init: str = "mean",
    seed: int = 0,
) -> CausalLM:
    """The model itself, with `vocab_size` rows in its embedding and, if untied, in its head.

        E'_i = E_i                                 i an old token: bit for bit
        E'_j = (1/|P_j|) sum_{i in P_j} E_i        j a new token, P_j its pieces under the old tokenizer

    JAI-1, arXiv:2510.08620, section 3.1.1: the mean of the embeddings of a new token's pieces. The
    paper speaks of embeddings; that an untied head is treated in the same way is our reading. The
    mean is taken in float32 and rounded once. One piece is a copy.

    pieces: new id -> old ids. A new id may lie below the old number of rows where these were padding
    (the old tokenizer had no such token); every other old row is left alone. A new id without pieces,
    and a row up to vocab_size that `pieces` does not name (padding), is drawn from
    normal(mean of the old rows, their standard deviation), by column: init="random" does so for all
    new ids, init="zero" fills them with zeros. Draws depend on `seed` and on the row's number alone.

    A new token whose row is a mean is as probable as its pieces are on average, so the loss on text
    of the new tokens starts below that of random rows, while the logits of the old tokens are
    unchanged.
    """
    if init not in INITS:
        raise RecipeError(
            f"there is no initialisation {init!r}", where="init", wanted=" or ".join(INITS)
        )
    old = model.head.shape[0]
    _check(pieces, old, vocab_size)
    embedding, head = _ends(model)
    tied = model.head is embedding.weight
    _replace(embedding, _grown(embedding.weight, pieces, vocab_size, init, seed))
    embedding.num_embeddings = vocab_size
    if head is not None:
        if tied:
            head.weight = embedding.weight
        else:
            _replace(head, _grown(head.weight, pieces, vocab_size, init, seed))
        head.out_features = vocab_size
    if isinstance(model, Decoder):
        model.config = model.config.model_copy(update={"vocab_size": vocab_size})
    else:
        model.config.vocab_size = model.module.vocab_size = vocab_size
    return model


def _grown(old: Tensor, pieces: dict[int, list[int]], size: int, init: str, seed: int) -> Tensor:
    """[size, D] out of the old rows [V, D]."""
    rows = old.new_zeros(size, old.shape[1])
    rows[: len(old)] = old
    fresh = sorted({*pieces, *range(len(old), size)})
    if init == "zero":
        rows[fresh] = 0
        return rows
    wide = old.float()
    centre, spread = wide.mean(0), wide.std(0)
    for each in fresh:
        parts = pieces.get(each, [])
        if init == "mean" and parts:
            rows[each] = wide[parts].mean(0).to(old.dtype)
        else:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + each)
            noise = torch.randn(old.shape[1], generator=generator).to(old.device)
            rows[each] = (centre + spread * noise).to(old.dtype)
    return rows


def _check(pieces: dict[int, list[int]], old: int, size: int) -> None:
    if size < old:
        raise DataError("a vocabulary can only grow", wanted=f"at least {old} rows", got=size)
    for new, parts in pieces.items():
        if not 0 <= new < size:
            raise DataError("a new token has no row", wanted=f"an id below {size}", got=new)
        stray = [part for part in parts if not 0 <= part < old or part in pieces]
        if stray:
            raise DataError(
                f"the pieces of token {new} are not old tokens",
                wanted=f"ids below {old} that are not new themselves",
                got=stray[:8],
            )


def _ends(model: CausalLM) -> tuple[nn.Embedding, nn.Linear | None]:
    """The embedding and the head layer; our decoder has none of the latter where they are tied."""
    if isinstance(model, Decoder):
        return model.model.embed_tokens, getattr(model, "lm_head", None)
    return model.module.get_input_embeddings(), model.module.get_output_embeddings()


def _replace(layer: nn.Module, weight: Tensor) -> None:
    layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
