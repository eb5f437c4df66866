"""Negative log-likelihood of the next token, from hidden states and the head, by chunks of tokens.

Shapes: N tokens, D width, V vocabulary; R rows of one chunk.
"""

import torch
from torch import Tensor

from endonym.methods.batch import Loss

CHUNK = 512
"""Rows multiplied with the head at once. In float32 128 to 2048 take the same time (the product adds up
the head's gradient by itself); in bfloat16 below 512 the additions to [V, D] begin to show."""

_BLOCK = 1 << 18
"""Logits taken to float32 at once on a CPU: 1 MiB stays in the second-level cache, where the softmax
takes a half to a quarter of the time that it takes over a whole chunk (measured at V = 16384)."""


def nll(
    hidden: Tensor,
    head: Tensor,
    labels: Tensor,
    weights: Tensor,
    chunk: int = CHUNK,
    cap: float | None = None,
) -> Loss:
    """Weighted sum of -log p(label) out of hidden states, labels and weights.

        z_n = W h_n,   L = sum_n w_n ( log sum_v exp z_nv - z_n,y(n) )
        dL/dz_n = w_n ( softmax(z_n) - onehot(y(n)) )

    hidden: [B, T, D] or [N, D], after the final norm; head W: [V, D]; labels and weights: the shape
    of hidden without D. cap: c of a model whose logits are c tanh(z / c); dL/dz_n then has the factor
    1 - tanh(z / c)^2.

    The gradients are formed in the forward pass, chunk by chunk, so that no more than [chunk, V]
    logits exist at a time (as in Liger-Kernel, arXiv:2410.10989). Positions of weight 0 are left out
    before the multiplication: in SFT that is much of the work. The products run in the dtype of the
    surrounding autocast, else in that of `hidden`; the softmax, the loss and the head's gradient
    summed over chunks are float32 in any case.
    """
    keep = (weights != 0).reshape(-1)
    index = slice(None) if bool(keep.all()) else keep.nonzero().squeeze(1)
    loss = _ChunkedNLL.apply(
        hidden.reshape(-1, hidden.shape[-1])[index],
        head,
        labels.reshape(-1)[index],
        weights.reshape(-1)[index].float(),
        chunk,
        cap,
        compute_dtype(hidden),
        torch.is_grad_enabled(),
    )
    return Loss(value=loss, weight=weights.sum(dtype=torch.float32))


@torch.no_grad()
def token_logprobs(
    hidden: Tensor, head: Tensor, labels: Tensor, chunk: int = CHUNK, cap: float | None = None
) -> Tensor:
    """log p(label) at every position: float32, in labels' shape, by chunks and without gradient."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    losses, *_ = chunked(rows, head, labels.reshape(-1), None, chunk, cap, compute_dtype(hidden))
    return -losses.view(labels.shape)


class _ChunkedNLL(torch.autograd.Function):
    """The sum of nll(), whose backward pass only hands out what the forward pass has formed."""

    @staticmethod
    def forward(ctx, rows, head, labels, weights, chunk, cap, dtype, with_gradient):
        wanted = weights if with_gradient and any(ctx.needs_input_grad[:2]) else None
        with torch.autocast(rows.device.type, enabled=False):
            losses, rows_grad, head_grad = chunked(
                rows, head, labels, wanted, chunk, cap, dtype, head_too=ctx.needs_input_grad[1]
            )
        ctx.save_for_backward(rows_grad, head_grad)
        return (losses * weights).sum()

    @staticmethod
    def backward(ctx, grad):
        return *handed_out(ctx, grad), None, None, None, None, None, None


def handed_out(ctx, grad: Tensor) -> list[Tensor | None]:
    """The saved gradients times `grad`. Where that is 1, as under value.backward(), they are given as
    they are: the head's is as large as the head, and no second one is made."""
    if bool(grad == 1):
        return list(ctx.saved_tensors)
    return [None if part is None else part * grad.to(part.dtype) for part in ctx.saved_tensors]


def chunked(
    rows: Tensor,
    head: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    chunk: int,
    cap: float | None,
    dtype: torch.dtype,
    temperature: float = 1.0,
    head_too: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Losses [N] in float32 and, where weights are given, the gradients of their weighted sum.

    The buffers are made once and reused: on a CPU fresh pages for every product cost as much as the
    softmax itself.
    """
    hidden, kernel = rows.detach().to(dtype), head.detach().to(dtype)
    losses = torch.empty(len(rows), dtype=exact(dtype), device=rows.device)
    logits = torch.empty(min(chunk, len(rows)), len(head), dtype=dtype, device=rows.device)
    rows_grad = None if weights is None else torch.empty_like(hidden)
    head_grad = HeadGradient(kernel) if weights is not None and head_too else None
    for start in range(0, len(rows), chunk):
        here = slice(start, min(start + chunk, len(rows)))
        z = torch.mm(hidden[here], kernel.t(), out=logits[: here.stop - start])
        losses[here], total = _losses_(
            z, labels[here], cap, temperature, with_gradient=weights is not None
        )
        if weights is None:
            continue
        # z now holds total * (softmax - onehot) (times the cap's slope): the division is left to the
        # [R, D] side, where it is V / D times cheaper.
        scale = (weights[here] / (total * temperature)).unsqueeze(1)
        torch.mm(z, kernel, out=rows_grad[here])
        rows_grad[here] *= scale
        if head_grad is not None:
            head_grad.add(z, (hidden[here] * scale).to(dtype))
    return (
        losses,
        None if rows_grad is None else rows_grad.to(rows.dtype),
        None if head_grad is None else head_grad.sum.to(head.dtype),
    )


class HeadGradient:
    """sum over chunks of (dL/dz)^T h, [V, D], in float32 whatever the products' dtype is."""

    def __init__(self, head: Tensor):
        self.sum = torch.zeros(head.shape, dtype=exact(head.dtype), device=head.device)
        self._part = None if self.sum.dtype == head.dtype else torch.empty_like(head)

    def add(self, z: Tensor, hidden: Tensor) -> None:
        """z [R, V]: dL/dlogits of a chunk; hidden [R, D]."""
        if self._part is None:  # the product adds up by itself
            torch.addmm(self.sum, z.t(), hidden, out=self.sum)
        else:
            self.sum += torch.mm(z.t(), hidden, out=self._part)


def _losses_(
    z: Tensor, labels: Tensor, cap: float | None, temperature: float, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """-log softmax(z)[label] and sum_v exp(z_v - max z), both [R] in float32, of z capped and then
    divided by the temperature.

    With `with_gradient`, z [R, V] is overwritten by exp(z - max) - total * onehot(label), which is
    total * (softmax(z) - onehot(label)), times the cap's slope; without, its content is lost.
    """
    size = block_rows(z)
    in_place = z.dtype == exact(z.dtype)
    wide = None if in_place else torch.empty(size, z.shape[1], device=z.device)
    losses = torch.empty(len(z), dtype=exact(z.dtype), device=z.device)
    total = torch.empty_like(losses)
    for start in range(0, len(z), size):
        block = z[start : start + size]
        here = slice(start, start + len(block))
        index = labels[here].unsqueeze(1)
        f = block if in_place else wide[: len(block)].copy_(block)
        if cap is not None:
            f.div_(cap).tanh_()
            slope = f.square().neg_().add_(1)
            f.mul_(cap)
        if temperature != 1:
            f.div_(temperature)
        top = f.amax(1, keepdim=True)
        chosen = f.gather(1, index) - top
        torch.exp(f.sub_(top), out=f)
        torch.sum(f, 1, out=total[here])
        losses[here] = total[here].log() - chosen.squeeze(1)
        if with_gradient:
            f.scatter_(1, index, chosen.exp() - total[here].unsqueeze(1))
            if cap is not None:
                f.mul_(slope)
            if not in_place:
                block.copy_(f)
    return losses, total


def compute_dtype(hidden: Tensor) -> torch.dtype:
    """Of the products with the head: that of the surrounding autocast, else that of `hidden`."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def exact(dtype: torch.dtype) -> torch.dtype:
    """Of softmax, losses and sums over chunks: float32, or float64 where the products are."""
    return torch.promote_types(dtype, torch.float32)


def block_rows(z: Tensor, held: int = 1) -> int:
    """Rows of logits [R, V] that are looked at together: so many as stay in a CPU's cache where `held`
    blocks of their size are needed at once."""
    cpu = z.device.type == "cpu"
    return max(1, _BLOCK // (held * z.shape[1])) if cpu else len(z)
