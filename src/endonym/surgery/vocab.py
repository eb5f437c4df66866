"""Another vocabulary for a trained model: kept rows untouched, new ones from their pieces.

Shapes: V vocabulary, D width, N new rows.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from endonym.core.errors import DataError, RecipeError
from endonym.model.checkpoint import CausalLM
from endonym.model.decoder import Decoder

INITS = ("mean", "overlap", "covariance", "random", "normal", "zero")
SHRINK = 1e-9
"""How far `covariance` draws stand from the mean: transformers' factor on the covariance."""


@torch.no_grad()
def grow_rows(
    model: CausalLM,
    pieces: Mapping[int, Sequence[int]],
    vocab_size: int,
    init: str = "mean",
    seed: int = 0,
) -> CausalLM:
    """The model itself, with `vocab_size` rows in its embedding and, if untied, in its head.

        E'_i = E_i                                 i a kept token: bit for bit
        E'_j = (1/|P_j|) sum_{i in P_j} E_i        j a new token, P_j its pieces under the old tokenizer

    JAI-1, arXiv:2510.08620, section 3.1.1: the mean of the embeddings of a new token's pieces. The
    paper speaks of embeddings; that an untied head is treated in the same way is our reading. The
    mean is taken in float32 and rounded once. One piece is a copy.

    pieces: new id -> old ids. A new id may lie below the old number of rows: it was padding there, or
    the row of a token that was dropped for it (K-EXAONE keeps 70 % of its old vocabulary). Pieces
    always mean the rows as they were before. Every other old row is left alone.

    init, for the rows named by `pieces` (E is the old table, mu its mean row, sigma and Sigma its
    deviation and covariance by column):

        mean         as above; a new token without pieces is drawn as by `random`
        overlap      the same; the caller gives the nearest old token as the one piece (nearest())
        covariance   N(mu, 1e-9 Sigma): what transformers' resize_token_embeddings does by default
        random       N(mu, diag sigma^2): as far from the mean as an old row is
        normal       N(0, 0.02^2): a row of a fresh model, resize_token_embeddings(mean_resizing=False)
        zero         zeros

    A row up to vocab_size that `pieces` does not name is padding, drawn by `random` (by `init` where
    that takes no pieces). Draws depend on `seed` and on the row's number alone.

    A new token whose row is a mean is as probable as its pieces are on average, so the loss on text
    of the new tokens starts below that of random rows, while the logits of the kept tokens are
    unchanged.
    """
    if init not in INITS:
        raise RecipeError(
            f"there is no initialisation {init!r}", where="init", wanted=" or ".join(INITS)
        )
    _check(pieces, model.head.shape[0], vocab_size)
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


def rows_for(tokens: int, rows: int, multiple: int = 1) -> int:
    """Rows of the table: as many as there are tokens, never fewer than before, a multiple of `multiple`.

    Published models pad their tables (phi-3: 32,011 tokens in 32,064 rows, a multiple of 64), so that
    matrix products and shards come out even.
    """
    return -(-max(tokens, rows) // multiple) * multiple


def nearest(old: Mapping[int, bytes], new: Mapping[int, bytes]) -> dict[int, list[int]]:
    """For each new token the old one whose bytes are most alike: one piece, or none, for grow_rows.

    Likeness is Dice's coefficient of the two tokens' multisets of byte n-grams, n = 1 to 4, the
    token's ends counted as a byte of their own; equals go to the lower id. An old token alike in
    nothing is no piece. It is the rule that people ask for as "copy the most similar subword"; there
    is no paper that defines it, so this definition is ours.
    """
    grams = {number: _grams(raw) for number, raw in old.items()}
    sizes = {number: sum(counted.values()) for number, counted in grams.items()}
    holders: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    for number, counted in sorted(grams.items()):
        for gram, times in counted.items():
            holders[gram].append((number, times))
    found = {}
    for number, raw in new.items():
        counted = _grams(raw)
        shared: Counter[int] = Counter()
        for gram, times in counted.items():
            for other, there in holders.get(gram, ()):
                shared[other] += min(times, there)
        size = sum(counted.values())
        best = min(
            shared,
            key=lambda other: (-2 * shared[other] / (size + sizes[other]), other),
            default=None,
        )
        found[number] = [] if best is None else [best]
    return found


def _grams(raw: bytes) -> Counter[bytes]:
    ended = b"\xff" + raw + b"\xff"  # a byte that UTF-8 never uses
    return Counter(
        ended[at : at + n]
        for n in range(1, 5)
        for at in range(len(ended) - n + 1)
        if n > 1 or ended[at] < 255
    )


def _grown(
    old: Tensor, pieces: Mapping[int, Sequence[int]], size: int, init: str, seed: int
) -> Tensor:
    """[size, D] out of the old rows [V, D]."""
    rows = old.new_zeros(size, old.shape[1])
    rows[: len(old)] = old
    fresh = sorted({*pieces, *range(len(old), size)})
    if init in ("mean", "overlap"):
        for each in fresh:
            if parts := list(pieces.get(each, ())):
                rows[each] = old[parts].float().mean(0).to(old.dtype)
        fresh = [each for each in fresh if not pieces.get(each)]
        init = "random"
    if fresh:
        rows[fresh] = _drawn(old.float(), fresh, init, seed).to(old.dtype)
    return rows


def _drawn(old: Tensor, fresh: Sequence[int], init: str, seed: int) -> Tensor:
    """[N, D] float32: rows without a past, by the rule `init`."""
    if init == "zero":
        return old.new_zeros(len(fresh), old.shape[1])
    if init == "normal":
        return 0.02 * _noise(old, fresh, seed, old.shape[1])
    centre = old.mean(0)
    if init == "random":
        return centre + old.std(0) * _noise(old, fresh, seed, old.shape[1])
    # z [V] standard normal: (E - mu)' z / sqrt(V - 1) has the covariance of E's rows, no matrix of
    # which needs to be factorised (with V < D it would not be positive definite)
    about = (old - centre) * (SHRINK / (len(old) - 1)) ** 0.5
    return torch.cat(
        [
            centre + _noise(old, fresh[at : at + 256], seed, len(old)) @ about
            for at in range(0, len(fresh), 256)
        ]
    )


def _noise(like: Tensor, fresh: Sequence[int], seed: int, width: int) -> Tensor:
    """[N, width] standard normal, each row by its own number."""
    rows = [
        torch.randn(width, generator=torch.Generator().manual_seed(seed * 1_000_003 + each))
        for each in fresh
    ]
    return torch.stack(rows).to(like.device)


def _check(pieces: Mapping[int, Sequence[int]], old: int, size: int) -> None:
    if size < old:
        raise DataError("a vocabulary can only grow", wanted=f"at least {old} rows", got=size)
    for new, parts in pieces.items():
        if not 0 <= new < size:
            raise DataError("a new token has no row", wanted=f"an id below {size}", got=new)
        stray = [part for part in parts if not 0 <= part < old]
        if stray:
            raise DataError(
                f"the pieces of token {new} are not old tokens",
                wanted=f"ids below {old}",
                got=stray[:8],
            )


def _ends(model: CausalLM) -> tuple[nn.Embedding, nn.Linear | None]:
    """The embedding and the head layer; our decoder has none of the latter where they are tied."""
    if isinstance(model, Decoder):
        return model.model.embed_tokens, getattr(model, "lm_head", None)
    return model.module.get_input_embeddings(), model.module.get_output_embeddings()


def _replace(layer: nn.Module, weight: Tensor) -> None:
    layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
