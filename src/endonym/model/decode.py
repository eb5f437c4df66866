"""The decoder's forward pass for the case that generation is made of: one more token in each row.

The equation is that of decoder.py, to the last bits (tests/model/test_decode.py). What differs is how
it is laid out, for on a CPU a step of a small model is mostly the calling of small operations, and
the reading of weights in an order that few rows do not suit: q, k and v are one product, gate and up
another, the residual is added within a product, cosines and sines are looked up.

Shapes: B rows, D width, V vocabulary, H query heads, K key/value heads, C channels of a head, R
rotated ones, S slots of the cache.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from endonym.model.cache import KVCache
from endonym.model.checkpoint import CausalLM
from endonym.model.decoder import (
    MLP,
    MTP,
    Attention,
    Block,
    Decoder,
    RMSNorm,
    Trunk,
    compute_dtype,
)
from endonym.model.experts import ExpertWeights, MoE, Router, mix, route
from endonym.model.kernels import cached_mask
from endonym.model.rope import by_length, rotary

BLOCK = 256
"""Columns of a block of the head. The fastest of 64 to 1024 for widths of 256 to 1024 on the processor of
these measurements (2 MB of level 2 cache a core)."""


class Step(Protocol):
    """Hidden states out of the newest tokens, and logits out of those."""

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Hidden states [B, D], after the final norm, of tokens [B] that continue the cache's rows."""

    def logits(self, hidden: Tensor) -> Tensor:
        """[B, V] of hidden states [B, D]; good until the next call."""


def step_of(model: CausalLM, rows: int, capacity: int) -> Step:
    """The fastest step there is for `model` at `rows` rows of at most `capacity` tokens.

    For a Decoder on a CPU, unless there is one row only, the weights are held a second time: they
    must not change while the step is used, and some six steps pay for the copy. On a GPU, where
    memory is dearer and the gain was not measured, it is the model's own forward pass, and so it is
    where a layer does more than its weights say: with an adapter beside it, in four bits, with a hook.
    """
    if isinstance(model, Decoder) and model.head.device.type == "cpu" and _is_plain(model):
        return PreparedStep(model, rows, capacity)
    return PlainStep(model)


OWN = {
    nn.Embedding, nn.Linear, nn.ModuleList, nn.ParameterDict, Trunk, Block, Attention, RMSNorm, MLP, MTP,
    MoE, Router, ExpertWeights,
}  # fmt: skip
"""What a Decoder is made of as it is built. A parametrised or replaced layer is of another class."""


def _is_plain(model: Decoder) -> bool:
    below = [each for each in model.modules() if each is not model]
    hooked = any(each._forward_hooks or each._forward_pre_hooks for each in below)
    return not hooked and all(type(each) in OWN for each in below)


class PlainStep:
    """A step by the model's own forward pass: for transformers' models, and for ours on a GPU."""

    def __init__(self, model: CausalLM):
        self.model, self.logits = model, model.logits

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        return self.model(tokens[:, None], cache=cache)[:, 0]


class PreparedStep:
    """A Decoder's step by weights that are joined and ordered for `rows` rows, without gradient."""

    @torch.no_grad()
    def __init__(self, model: Decoder, rows: int, capacity: int):
        config, self.dtype = model.config, compute_dtype(model.head)
        self.config, self.cap = config, model.cap
        self.heads, self.keys = config.num_attention_heads, config.num_key_value_heads
        self.nothing = torch.zeros(1, 1, 1)
        self.embedding = model.model.embed_tokens.weight.detach()
        self.layers = [_Layer(block, rows, self.dtype) for block in model.model.layers]
        self.norm = _Norm(model.model.norm, self.dtype)
        self.head = _product([(model.head, None)], rows, self.dtype)
        self.skips = {
            layer: (source, model.model.skip_alpha[str(layer)].detach())
            for layer, source in config.skips
        }
        self.sources = {source for _, source in config.skips}
        places = torch.arange(capacity)[None]
        lengths = torch.full_like(places, capacity) if by_length(config) else None
        self.turns = _Turns(*rotary(places, config, torch.float32, lengths), config.head_dim, rows)

    @torch.no_grad()
    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        rows, positions, stop = len(tokens), cache.lengths, cache.longest + 1
        assert stop <= cache.capacity, f"{stop} tokens in a cache of {cache.capacity}"
        config, heads, keys = self.config, self.heads, self.keys
        with torch.autocast("cpu", enabled=False):
            x = F.embedding(tokens, self.embedding).to(self.dtype)
            if config.embedding_multiplier != 1:
                x = x * config.embedding_multiplier
            turn = self.turns(positions)
            # By the layer's window: where the new tokens go, and what a row may see
            mask = cached_mask(positions[:, None], stop, 1, cache.dtype)
            seen = {None: (_slots(positions, keys, cache.capacity), self._each_head(mask))}
            if config.sliding_window is not None:
                size = min(config.sliding_window, cache.capacity)
                mask = cache.window_mask(positions[:, None], None, 1)
                seen[config.sliding_window] = (
                    _slots(positions % size, keys, size),
                    self._each_head(mask),
                )
            outputs = {-1: x} if self.skips else {}
            for number, layer in enumerate(self.layers):
                if number in self.skips:
                    source, alpha = self.skips[number]
                    x = x + alpha * outputs[source]
                qkv = layer.qkv(_by(layer.attention_in, x)).to(cache.dtype)
                qkv = qkv.view(rows, heads + 2 * keys, -1)
                qk = qkv[:, : heads + keys]
                if layer.qk_norm is not None:
                    qk = layer.qk_norm(qk)
                if layer.rope:
                    qk = torch.bmm(qk, turn)
                slots, mask = seen[layer.window]
                k, v = cache.keys[number], cache.values[number]
                channels = k.shape[3]
                k.view(-1, channels).index_copy_(0, slots, qk[:, heads:].reshape(-1, channels))
                new = qkv[:, heads + keys :].reshape(-1, channels)
                v.view(-1, channels).index_copy_(0, slots, new)
                # One product for each key head: [B K, G, C] of queries over [B K, S, C]
                q = qk[:, :heads].reshape(rows * keys, -1, channels)
                k, v = (each.flatten(0, 1)[:, :stop] for each in (k, v))
                scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=layer.scale)
                out = torch.bmm(scores.softmax(2), v).view(rows, -1).to(self.dtype)
                x = layer.add(x, out, layer.out, layer.attention_out)
                x = layer.feed(x)
                if number in self.sources:
                    outputs[number] = x
            cache.advance(1, None)
            hidden = self.norm(x)
            return hidden if config.logits_scaling == 1 else hidden * config.logits_scaling

    def logits(self, hidden: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            z = self.head(hidden)
            return z if self.cap is None else torch.tanh(z / self.cap) * self.cap

    def _each_head(self, mask: Tensor | None) -> Tensor:
        """cached_mask()'s [B, 1, 1, S] as [B K, 1, S]; zero where all is seen."""
        if mask is None:
            return self.nothing
        return mask[:, 0].repeat_interleave(self.keys, 0)


def _slots(positions: Tensor, heads: int, size: int) -> Tensor:
    """[B K]: where in [B K size, C] the keys of one token a row go."""
    row = torch.arange(len(positions) * heads).view(-1, heads)
    return (row * size + positions[:, None]).view(-1)


class _Turns:
    """The rotation by each position as a matrix [C, C], so that turning q and k is one product.

        R = [ diag(cos), diag(sin) ; -diag(sin), diag(cos) ]     the identity behind the rotated channels

    On a CPU it takes a third of the time of the five small operations that it stands for.
    """

    def __init__(self, cos: Tensor, sin: Tensor, channels: int, rows: int):
        """cos, sin: [1, positions, 1, R / 2]"""
        half = cos.shape[3]
        self.values = torch.cat([cos, cos, sin, -sin], 3)[0, :, 0]
        one, other = torch.arange(half), torch.arange(half, 2 * half)
        start = torch.cat([one, other, one, other])
        end = torch.cat([one, other, other, one])
        self.places = start * channels + end
        self.matrices = torch.eye(channels).repeat(rows, 1, 1)

    def __call__(self, positions: Tensor) -> Tensor:
        """[B, C, C] of positions [B]; good until the next call."""
        found = self.matrices[: len(positions)]
        found.view(len(positions), -1).index_copy_(1, self.places, self.values[positions])
        return found


class _Layer:
    """The weights of one block."""

    def __init__(self, block: Block, rows: int, dtype: torch.dtype):
        attention, mlp = block.self_attn, block.mlp
        norms = [norm if norm is None else _Norm(norm, dtype) for norm in block.norms]
        self.attention_in, self.attention_out, self.mlp_in, self.mlp_out = norms
        self.multiplier = block.multiplier
        self.rope, self.window = attention.rope, attention.window
        self.scale = attention.channels**-0.5 if attention.scale is None else attention.scale
        self.qkv = _joined([attention.q_proj, attention.k_proj, attention.v_proj], rows, dtype)
        self.qk_norm = _QKNorm(attention) if attention.qk_norm else None
        self.out = _joined([attention.o_proj], rows, dtype)
        self.mlp = _MoE(mlp, rows, dtype) if isinstance(mlp, MoE) else _MLP(mlp, rows, dtype)

    def feed(self, x: Tensor) -> Tensor:
        """x and what the MLP makes of it."""
        inner = _by(self.mlp_in, x)
        if isinstance(self.mlp, _MLP):
            return self.add(x, self.mlp.inside(inner), self.mlp.down, self.mlp_out)
        return self.add(x, inner, self.mlp, self.mlp_out)

    def add(self, x: Tensor, inner: Tensor, last, norm: "_Norm | None") -> Tensor:
        """x + m norm(last(inner)); within the product where nothing stands between."""
        if norm is None and self.multiplier == 1:
            return last(inner, onto=x)
        return torch.add(x, _by(norm, last(inner)), alpha=self.multiplier)


class _MLP:
    def __init__(self, mlp: MLP, rows: int, dtype: torch.dtype):
        self.gate_up = _joined([mlp.gate_proj, mlp.up_proj], rows, dtype)
        self.down = _joined([mlp.down_proj], rows, dtype)

    def inside(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, 1)
        return F.silu(gate).mul_(up)


class _MoE:
    """Routed experts: for one row as they lie, for several transposed in memory, as in _Transposed."""

    def __init__(self, moe: MoE, rows: int, dtype: torch.dtype):
        self.router = moe.router.weight.detach().float(), moe.router.bias, moe.router.experts
        weights = (moe.experts.gate_up, moe.experts.down)
        self.gate_up, self.down = (weight.detach().to(dtype) for weight in weights)
        if rows > 1 and dtype == torch.float32:
            self.gate_up = self.gate_up.transpose(1, 2).contiguous().transpose(1, 2)
            self.down = self.down.transpose(1, 2).contiguous().transpose(1, 2)
        self.shared = None if moe.shared is None else _MLP(moe.shared, rows, dtype)

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        gates, chosen, _ = route(x, *self.router)
        out = mix(x, gates, chosen, self.gate_up, self.down)
        if self.shared is not None:
            out = self.shared.down(self.shared.inside(x), onto=out)
        return out if onto is None else onto + out


def _by(norm: "_Norm | None", x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


class _Norm:
    """kernels.rms_norm in fewer calls: x w sqrt(D) / sqrt( |x|^2 + D eps )."""

    def __init__(self, norm: RMSNorm, dtype: torch.dtype):
        width = len(norm.weight)
        self.weight = norm.weight.detach().float() * width**0.5
        self.eps, self.dtype = torch.tensor(width * norm.eps), dtype

    def __call__(self, x: Tensor) -> Tensor:
        x = x.float()
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = torch.addcmul(self.eps, length, length).rsqrt_()
        return (x * inverse).mul_(self.weight).to(self.dtype)


class _QKNorm:
    """The norms of all heads of q and k at once, [B, H + K, C]."""

    def __init__(self, attention: Attention):
        q, k = attention.q_norm, attention.k_norm
        heads = [
            each.out_features // attention.channels for each in (attention.q_proj, attention.k_proj)
        ]
        self.weight = torch.cat([q.weight.expand(heads[0], -1), k.weight.expand(heads[1], -1)])
        self.eps = q.eps

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[2:], None, self.eps) * self.weight


# The product x W^T + b of a few rows x with several matrices one under the other. `onto` is added.


def _joined(linears: list[nn.Linear], rows: int, dtype: torch.dtype):
    return _product([(each.weight, each.bias) for each in linears], rows, dtype)


def _product(parts: list[tuple[Tensor, Tensor | None]], rows: int, dtype: torch.dtype):
    """The fastest of the ways below; parts: weight [out, in] and bias [out] or None."""
    weights = [weight.detach().to(dtype) for weight, _ in parts]
    biases = [bias if bias is None else bias.detach().to(dtype) for _, bias in parts]
    if rows == 1:
        return _OneRow(weights, biases)
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    bias = None if biases[0] is None else torch.cat(biases)
    if dtype == torch.bfloat16 and torch.backends.mkldnn.is_available():
        return _Reordered(weight, bias, rows)
    if len(weight) >= 32 * BLOCK and bias is None:
        return _Blocks(weight, rows)
    return _Transposed(weight, bias)


class _OneRow:
    """The weights as they lie: the time is that of reading them, and no copy pays."""

    def __init__(self, weights: list[Tensor], biases: list[Tensor | None]):
        self.parts = list(zip(weights, biases))

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        x = x[0]
        found = [
            torch.mv(weight, x) if bias is None else torch.addmv(bias, weight, x)
            for weight, bias in self.parts
        ]
        out = (found[0] if len(found) == 1 else torch.cat(found))[None]
        return out if onto is None else out.add_(onto)


class _Transposed:
    """W^T contiguous: products of 2 to 32 rows in float32 take a half to 0.85 of the time."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.weight, self.bias = weight.t().contiguous(), bias

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        if onto is None:
            return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)
        out = torch.addmm(onto, x, self.weight)
        return out if self.bias is None else out.add_(self.bias)


class _Blocks:
    """W^T in blocks of so many columns, for the head of a large vocabulary: each block lies in one piece
    and stays in the processor's own cache while it is multiplied. 8 rows then take half of the time of
    W as it lies, where _Transposed takes 0.65; 32 rows three quarters, where that gains nothing."""

    def __init__(self, weight: Tensor, rows: int):
        self.blocks = [each.t().contiguous() for each in weight.split(BLOCK)]
        # Megabytes, which the system would give and take back at every token
        self.out = weight.new_empty(rows, len(weight))

    def __call__(self, x: Tensor) -> Tensor:
        """Good until the next call."""
        out = self.out[: len(x)]
        for block, part in zip(self.blocks, out.split(BLOCK, 1)):
            torch.mm(x, block, out=part)
        return out


class _Reordered:
    """The order in which oneDNN's kernels read bfloat16: it need not reorder W at every call."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int):
        self.weight, self.bias = torch.ops.mkldnn._reorder_linear_weight(weight, rows), bias

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        out = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out if onto is None else out.add_(onto)
