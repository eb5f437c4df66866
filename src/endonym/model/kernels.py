"""The few operations of the decoder that have a fast way of their own, each with its plain formula.

Shapes: B rows, T time, N = B T tokens, D width, H query heads, K key/value heads, C channels of a
head; n documents padded to L tokens, M slots in all; W tokens of a window.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SHORT = 192
"""Documents up to this length attend in float32 when a CPU trains in bfloat16: the backward pass of
the bfloat16 kernel has a cost per token that only longer documents repay (64 documents of 64
tokens: 35 ms against 15 ms; 16 of 256: 30 ms against 33 ms)."""

_BLOCK = 1 << 17
"""Elements of one block of rows: half a megabyte in float32."""

BAND = 32
"""Queries of windowed attention that are taken together, at least: smaller blocks see fewer keys in
vain, but there are more of them (forward and backward of 2 x 2048 tokens on one core, W = 16: 38 ms
at 32, 46 at 64; W = 128: 69 ms, where everything before costs 212)."""


@dataclass(frozen=True)
class Documents:
    """Where the documents of packed rows lie: found once per forward pass, used by every layer.

    The documents are laid out as batches of similar length, one after the other: M slots.

    shapes:  (n, L) of each batch
    gather:  [M] the token in each slot; the slots past a document's end repeat its first token
    blank:   those slots
    home:    [N] the slot of each token; 0 for padding
    padding: the tokens that belong to no document
    """

    shapes: list[tuple[int, int]]
    gather: Tensor
    blank: Tensor
    home: Tensor
    padding: Tensor


def documents_in(segments: Tensor) -> Documents | None:
    """The documents of packed rows [B, T]; None where every row is one document, then padding.

    In that case the causal mask alone keeps the padding, which lies to the right, out of sight.
    Otherwise documents of 1, 2, 3-4, 5-8, 9-16 ... tokens form one batch each, so that less than
    half of it is blank, and one causal attention runs over each batch. That is the same on every
    backend, and faster than a [T, T] mask, with which all pairs of the row are computed (forward and
    backward of 4096 tokens in bfloat16 on one core: 44 ms against 50 at 8 documents in 512 tokens,
    26 ms against 40 at 4 in 96).
    """
    if bool((segments <= 1).all()) and bool((segments[:, 1:] <= segments[:, :-1]).all()):
        return None
    device, (rows, time) = segments.device, segments.shape
    segments = segments.cpu()  # a few integers per document: not worth a kernel each
    edge = torch.ones(rows, time, dtype=torch.bool)
    edge[:, 1:] = segments[:, 1:] != segments[:, :-1]
    start = edge.reshape(-1).nonzero().squeeze(1)
    length = torch.diff(start, append=torch.tensor([rows * time]))
    real = segments.reshape(-1)[start] > 0
    start, length = start[real], length[real]
    magnitude = torch.log2(length.double()).ceil()
    shapes, gather, inside = [], [], []
    for each in magnitude.unique():
        first, long = start[magnitude == each], length[magnitude == each]
        step = torch.arange(int(long.max()))
        within = step < long[:, None]
        shapes.append(tuple(within.shape))
        gather.append((first[:, None] + step * within).reshape(-1))
        inside.append(within.reshape(-1))
    gather, inside = torch.cat(gather), torch.cat(inside)
    home = torch.zeros(rows * time, dtype=torch.long)
    home[gather[inside]] = inside.nonzero().squeeze(1)
    parts = (
        gather,
        (~inside).nonzero().squeeze(1),
        home,
        (segments == 0).reshape(-1).nonzero()[:, 0],
    )
    return Documents(shapes, *(part.to(device) for part in parts))


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    documents: Documents | None,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Causal attention [B, T, H, C] out of q [B, T, H, C] and k, v [B, T, K, C].

        o_t = sum_s softmax_s( scale q_t . k_s ) v_s      over s <= t of the same document, s > t - W

    Each run of H / K query heads shares one key/value head. Padding gets zeros where `documents`
    is given. window: W; None: all that came before. scale: None is 1 / sqrt(C).
    """
    if documents is None:
        return _causal(q, k, v, window, scale)
    heads = [q.shape[2], k.shape[2], v.shape[2]]
    slots = _Move.apply(
        torch.cat([q, k, v], 2).flatten(0, 1),
        (documents.gather, None),
        (documents.home, documents.padding),
    )
    done = []
    for batch, shape in zip(slots.split([n * l for n, l in documents.shapes]), documents.shapes):
        parts = batch.unflatten(0, shape).split(heads, 2)
        done.append(_causal(*parts, window, scale).flatten(0, 1))
    out = _Move.apply(
        torch.cat(done) if len(done) > 1 else done[0],
        (documents.home, documents.padding),
        (documents.gather, documents.blank),
    )
    return out.view(q.shape)


class _Move(torch.autograd.Function):
    """x[index] with chosen rows zeroed; the gradient goes the other way round by an index as well.

    The gradient of plain indexing is a scattered sum, several times slower than a second look-up.
    A look-up suffices because each token has one slot, and because what comes back to the blank
    slots is zero: no token sees them, and their own output is dropped.
    """

    @staticmethod
    def forward(ctx, x, there, back):
        ctx.back = back
        return _look_up(x, *there)

    @staticmethod
    def backward(ctx, grad):
        return _look_up(grad, *ctx.back), None, None


def _look_up(x: Tensor, index: Tensor, zero: Tensor | None) -> Tensor:
    out = x.index_select(0, index)
    return out if zero is None or not len(zero) else out.index_fill_(0, zero, 0)


def _causal(q: Tensor, k: Tensor, v: Tensor, window: int | None, scale: float | None) -> Tensor:
    dtype = q.dtype
    if (
        dtype == torch.bfloat16
        and q.device.type == "cpu"
        and q.shape[1] <= SHORT
        and torch.is_grad_enabled()
    ):
        q, k, v = q.float(), k.float(), v.float()
    with torch.autocast(q.device.type, enabled=False):
        if window is None or q.shape[1] <= window:
            out = _attention(q, k, v, None, scale)
        else:
            out = _windowed(q, k, v, window, scale)
    return out.to(dtype)


def _windowed(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float | None) -> Tensor:
    """Blocks of S >= W queries, each over its own keys and those of the block before: T 2 S products
    of queries and keys, whatever T. The first block has none before it."""
    size, time = max(window, BAND), q.shape[1]
    if time <= 2 * size:
        return _attention(q, k, v, _band(time, time, window, q.device), scale)
    missing = -time % size
    q, k, v = (F.pad(each, (0, 0, 0, 0, 0, missing)).unflatten(1, (-1, size)) for each in (q, k, v))
    band = None if window == size else _band(size, size, window, q.device)
    first = _attention(q[:, 0], k[:, 0], v[:, 0], band, scale)
    keys, values = (torch.cat([each[:, :-1], each[:, 1:]], 2).flatten(0, 1) for each in (k, v))
    rest = _attention(
        q[:, 1:].flatten(0, 1), keys, values, _band(size, 2 * size, window, q.device), scale
    )
    rest = rest.unflatten(0, (len(q), -1)).flatten(1, 2)
    return torch.cat([first, rest], 1)[:, :time]


def _band(queries: int, keys: int, window: int, device: torch.device) -> Tensor:
    """[queries, keys]: which keys a query sees, the last of both standing at one position."""
    step = torch.arange(keys, device=device)
    distance = step[keys - queries :, None] - step
    return (distance >= 0) & (distance < window)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """[B, T, H, C] out of q [B, T, H, C], k, v [B, S, K, C]; mask [T, S], None: causal."""
    group = q.shape[2] // k.shape[2]
    if mask is not None and group > 1 and q.device.type == "cuda":
        # Of CUDA's fast kernels only the one without masks knows groups of heads.
        k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask,
        is_causal=mask is None, scale=scale, enable_gqa=q.shape[2] != k.shape[2],
    )  # fmt: skip
    return out.transpose(1, 2)


def attend_cached(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None
) -> Tensor:
    """Attention [B, T, H, C] of q [B, T, H, C] over the slots k, v [B, K, S, C] of a cache.

    mask: cached_mask() or window_mask() of the same pass. The query heads that share a key head stand
    side by side in time, so that no key is ever repeated.
    """
    rows, time, heads, channels = q.shape
    group = heads // k.shape[1]
    by_key = q.unflatten(2, (-1, group)).transpose(1, 2).flatten(2, 3).to(k.dtype)  # [B, K, T G, C]
    with torch.autocast(q.device.type, enabled=False):
        out = F.scaled_dot_product_attention(by_key, k, v, attn_mask=mask, scale=scale)
    out = out.unflatten(2, (time, group)).transpose(1, 2)
    return out.reshape(rows, time, heads, channels).to(q.dtype)


def cached_mask(positions: Tensor, stop: int, group: int, dtype: torch.dtype) -> Tensor | None:
    """What attend_cached adds to its scores: 0 on the slots 0..p for a query at positions [B, T],
    -inf on the slots behind, up to `stop`. None where all is seen."""
    rows, time = positions.shape
    if rows == time == 1:
        return None
    hidden = torch.arange(stop, device=positions.device) > positions[:, :, None]
    return _added(hidden, group, dtype)


def window_mask(
    positions: Tensor, held: Tensor, window: int, group: int, dtype: torch.dtype
) -> Tensor:
    """cached_mask() of a sliding layer that reads several tokens: its slots, then those tokens.

    positions: [B, T] of the tokens; held: [B, S] the position that each slot held before them,
    negative where it held none.
    """
    at = torch.cat([held, positions], 1)[:, None]  # [B, 1, S + T]
    here = positions[:, :, None]
    return _added((at < 0) | (at > here) | (at <= here - window), group, dtype)


def _added(hidden: Tensor, group: int, dtype: torch.dtype) -> Tensor:
    """0 and -inf, [B, 1, T G, S] out of hidden [B, T, S]."""
    if hidden.shape[1] > 1:
        hidden = hidden.repeat_interleave(group, 1)
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return mask.masked_fill_(hidden, float("-inf"))[:, None]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt( mean x^2 + eps ) * weight over the last dimension, computed in float32, in x's dtype.

    RMSNorm, arXiv:1910.07467, eq. 4.
    """
    if torch.is_grad_enabled():
        return _RMSNorm.apply(x, weight, eps)
    return _normed(x, weight, eps)[0]


def _normed(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    wide = x.float()
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    inverse = norm.mul_(norm).mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
    return (wide * inverse).mul_(weight.float()).to(x.dtype), inverse


class _RMSNorm(torch.autograd.Function):
    """Keeps x and one number a token; F.rms_norm's gradient takes several times as long on a CPU."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        out, inverse = _normed(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return out

    @staticmethod
    def backward(ctx, grad):
        x, weight, inverse = ctx.saved_tensors
        width = x.shape[-1]
        rows, grad, inverse = x.reshape(-1, width), grad.reshape(-1, width), inverse.reshape(-1, 1)
        scale = weight.float()
        x_grad, weight_grad = torch.empty_like(rows), torch.zeros_like(scale)
        # By blocks that stay in a CPU's cache: a third of the time of whole tensors.
        size = max(1, _BLOCK // width) if x.device.type == "cpu" else len(rows)
        for start in range(0, len(rows), max(1, size)):
            here = slice(start, start + size)
            unit, wide = rows[here].float() * inverse[here], grad[here].float()
            both = wide * unit
            weight_grad += both.sum(0)
            along = torch.mv(both, scale).div_(-width).unsqueeze(1)
            x_grad[here] = (wide * scale).addcmul_(unit, along).mul_(inverse[here])
        x_grad, weight_grad = x_grad.view(x.shape), weight_grad.to(weight.dtype)
        return x_grad, weight_grad, None
