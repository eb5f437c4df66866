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
from endonym.model.decoder import MLP, Attention, Block, Decoder, RMSNorm, compute_dtype
from endonym.model.experts import MoE, mix, route
from endonym.model.kernels import cached_mask
from endonym.model.rope import by_length, rotary


class Step(Protocol):
    """Hidden states out of the newest tokens, and logits out of those."""

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Hidden states [B, D], after the final norm, of tokens [B] that continue the cache's rows."""

    def logits(self, hidden: Tensor) -> Tensor:
        """[B, V] of hidden states [B, D]."""


def step_of(model: CausalLM, rows: int, capacity: int) -> Step:
    """The fastest step there is for `model` at `rows` rows of at most `capacity` tokens.

    For a Decoder on a CPU, unless there is one row only, the weights are held a second time: they
    must not change while the step is used, and some six steps pay for the copy. On a GPU, where
    memory is dearer and the gain was not measured, it is the model's own forward pass.
    """
    if isinstance(model, Decoder) and model.head.device.type == "cpu":
        return PreparedStep(model, rows, capacity)
    return PlainStep(model)


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
        self.embedding = model.model.embed_tokens.weight.detach()
        self.layers = [_Layer(block, rows, self.dtype) for block in model.model.layers]
        self.norm = _Norm(model.model.norm, self.dtype)
        self.head = _product([(model.head, None)], rows, self.dtype)
        self.skips = {
            layer: (source, model.model.skip_alpha[str(layer)].detach())
            for layer, source in config.skips
        }
        self.sources = {source for _, source in config.skips}
        # [capacity, 1, R]: with the sign in the sine, x cos + (x with its halves exchanged) sin
        places = torch.arange(capacity)[None]
        lengths = torch.full_like(places, capacity) if by_length(config) else None
        cos, sin = rotary(places, config, torch.float32, lengths)
        self.cos, self.sin = torch.cat([cos, cos], 3)[0], torch.cat([-sin, sin], 3)[0]

    @torch.no_grad()
    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        rows, positions, stop = len(tokens), cache.lengths, cache.longest + 1
        assert stop <= cache.capacity, f"{stop} tokens in a cache of {cache.capacity}"
        group, config = self.heads // self.keys, self.config
        with torch.autocast("cpu", enabled=False):
            x = F.embedding(tokens, self.embedding).to(self.dtype)
            if config.embedding_multiplier != 1:
                x = x * config.embedding_multiplier
            turn = self.cos[positions], self.sin[positions]
            # By the layer's window: the slots of the new tokens in all rows, and what a row may see
            row = torch.arange(rows)
            mask = cached_mask(positions[:, None], stop, group, cache.dtype)
            seen = {None: (row * cache.capacity + positions, mask)}
            if config.sliding_window is not None:
                size = min(config.sliding_window, cache.capacity)
                mask = cache.window_mask(positions[:, None], None, group)
                seen[config.sliding_window] = (row * size + positions % size, mask)
            outputs = {-1: x} if self.skips else {}
            for number, layer in enumerate(self.layers):
                if number in self.skips:
                    source, alpha = self.skips[number]
                    x = x + alpha * outputs[source]
                qkv = layer.qkv(_by(layer.attention_in, x)).to(cache.dtype)
                qkv = qkv.view(rows, self.heads + 2 * self.keys, -1)
                qk = qkv[:, : self.heads + self.keys]
                if layer.qk_norm is not None:
                    qk.copy_(layer.qk_norm(qk))
                if layer.rope:
                    _turn_(qk, *turn)
                slots, mask = seen[layer.window]
                cache.pairs[number].flatten(0, 1).index_copy_(0, slots, qkv[:, self.heads :])
                q = qkv[:, : self.heads].unflatten(1, (self.keys, group))
                out = F.scaled_dot_product_attention(
                    q, *cache.seen(number, stop), attn_mask=mask, scale=layer.scale
                )
                out = out.reshape(rows, -1).to(self.dtype)
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


def _turn_(qk: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotates the first R channels of qk [B, H + K, C] in place."""
    qk = qk[..., : cos.shape[-1]]
    exchanged = qk.roll(qk.shape[2] // 2, 2)
    qk.mul_(cos).addcmul_(exchanged, sin)


class _Layer:
    """The weights of one block."""

    def __init__(self, block: Block, rows: int, dtype: torch.dtype):
        attention, mlp = block.self_attn, block.mlp
        norms = [norm if norm is None else _Norm(norm, dtype) for norm in block.norms]
        self.attention_in, self.attention_out, self.mlp_in, self.mlp_out = norms
        self.multiplier = block.multiplier
        self.rope, self.window, self.scale = attention.rope, attention.window, attention.scale
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
    """The fastest of the three ways below; parts: weight [out, in] and bias [out] or None."""
    weights = [weight.detach().to(dtype) for weight, _ in parts]
    biases = [bias if bias is None else bias.detach().to(dtype) for _, bias in parts]
    if rows == 1:
        return _OneRow(weights, biases)
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    bias = None if biases[0] is None else torch.cat(biases)
    if dtype == torch.bfloat16 and torch.backends.mkldnn.is_available():
        return _Reordered(weight, bias, rows)
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


class _Reordered:
    """The order in which oneDNN's kernels read bfloat16: it need not reorder W at every call."""

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int):
        self.weight, self.bias = torch.ops.mkldnn._reorder_linear_weight(weight, rows), bias

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        out = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out if onto is None else out.add_(onto)
