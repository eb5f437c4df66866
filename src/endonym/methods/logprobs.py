"""Log-probabilities of given tokens, differentiable, from hidden states and the head, by chunks.

What policy losses need (a ratio of probabilities at every token, then any function of it), where the
loss is not a sum that can be formed chunk by chunk as nll's is. Shapes: N tokens, D width, V vocabulary.
"""

import torch
from torch import Tensor

from endonym.methods.nll import CHUNK, chunked, compute_dtype, handed_out


def selected_logprobs(
    hidden: Tensor,
    head: Tensor,
    labels: Tensor,
    cap: float | None = None,
    temperature: float = 1.0,
    chunk: int = CHUNK,
) -> Tensor:
    """log p(label) at every position, in labels' shape; float32 (float64 of float64 states).

        z_n = W h_n,   log p_n = z_n,y(n) / tau - log sum_v exp( z_nv / tau )
        d log p_n / d z_n = ( onehot(y(n)) - softmax(z_n / tau) ) / tau

    hidden [..., D] after the final norm; head W [V, D]; cap c of a model whose logits are c tanh(z / c)
    (then divided by tau, the sampler's order).

    No more than [chunk, V] logits exist at a time: the backward pass computes them once more, chunk by
    chunk, for those positions only whose gradient is not 0. That costs one product with the head more
    than keeping them would, and never [N, V] numbers.
    """
    found = _Selected.apply(
        hidden.reshape(-1, hidden.shape[-1]),
        head,
        labels.reshape(-1),
        cap,
        temperature,
        chunk,
        compute_dtype(hidden),
    )
    return found.view(labels.shape)


class _Selected(torch.autograd.Function):
    """nll's machinery, used twice: for the losses, and with the incoming gradient as their weights."""

    @staticmethod
    def forward(ctx, rows, head, labels, cap, temperature, chunk, dtype):
        ctx.save_for_backward(rows, head, labels)
        ctx.settings = (chunk, cap, dtype, temperature)
        with torch.autocast(rows.device.type, enabled=False):
            losses, *_ = chunked(rows, head, labels, None, *ctx.settings)
        return -losses

    @staticmethod
    def backward(ctx, grad):
        rows, head, labels = ctx.saved_tensors
        index = (grad != 0).nonzero().squeeze(1)
        with torch.autocast(rows.device.type, enabled=False):
            # log p is minus nll's loss, so the loss's weights are minus the gradient of log p.
            _, part, head_grad = chunked(
                rows[index], head, labels[index], -grad[index], *ctx.settings,
                head_too=ctx.needs_input_grad[1],
            )  # fmt: skip
        rows_grad = None
        if ctx.needs_input_grad[0]:
            rows_grad = torch.zeros_like(rows).index_copy_(0, index, part)
        return rows_grad, head_grad, None, None, None, None, None


def surrogate(
    hidden: Tensor,
    head: Tensor,
    labels: Tensor,
    coefficients: Tensor,
    cap: float | None = None,
    temperature: float = 1.0,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """sum_n c_n p(y_n) / sg[p(y_n)], and log p(y_n), detached; sg: no gradient flows through it.

        value = sum_n c_n,   d value = sum_n c_n d log p_n

    The policy gradient where sampler and policy are one: its coefficients are known before any
    log-probability is, so the gradient is formed in the forward pass as nll's is. hidden [N, D], head
    [V, D], labels and coefficients [N].
    """
    value, found = _Surrogate.apply(
        hidden, head, labels, coefficients, cap, temperature, chunk, compute_dtype(hidden),
        torch.is_grad_enabled(),
    )  # fmt: skip
    return value, found.detach()


class _Surrogate(torch.autograd.Function):
    """The sum of surrogate(), whose backward pass only hands out what the forward pass has formed."""

    @staticmethod
    def forward(ctx, rows, head, labels, weights, cap, temperature, chunk, dtype, with_gradient):
        # log p is minus nll's loss, so the loss's weights are minus the coefficients.
        wanted = -weights if with_gradient and any(ctx.needs_input_grad[:2]) else None
        with torch.autocast(rows.device.type, enabled=False):
            losses, rows_grad, head_grad = chunked(
                rows, head, labels, wanted, chunk, cap, dtype, temperature,
                head_too=ctx.needs_input_grad[1],
            )  # fmt: skip
        ctx.save_for_backward(rows_grad, head_grad)
        found = -losses
        ctx.mark_non_differentiable(found)
        return weights.sum(), found

    @staticmethod
    def backward(ctx, grad, _):
        return *handed_out(ctx, grad), None, None, None, None, None, None, None
