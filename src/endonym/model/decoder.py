"""The decoder: tokens in, hidden states out. One forward for training, packed rows, reading a prompt
and writing the next token, so that what is sampled is what is trained.

Shapes: B rows, T time, D width, F inner width, V vocabulary, H query heads, K key/value heads, C
channels of a head, W tokens of a window.

To run it in bfloat16 keep the weights in float32 and call it under torch.autocast(device,
torch.bfloat16): all activations, the residual stream too, are then bfloat16, and the gradients reach
the float32 weights. A model loaded in bfloat16 (hf.load) needs no autocast; that is for inference.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from endonym.model.cache import KVCache
from endonym.model.config import ModelConfig
from endonym.model.experts import MoE
from endonym.model.kernels import (
    Documents,
    attend,
    attend_cached,
    cached_mask,
    documents_in,
    rms_norm,
)
from endonym.model.rope import by_length, lengths_in, rotary, rotate


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Causal attention, over everything before or over a window, with grouped heads, rotary positions
    (or none at all) and, if asked for, normed q and k."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        width, channels = config.hidden_size, config.head_dim
        queries, keys = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = nn.Linear(width, queries * channels, bias=config.has_qkv_bias)
        self.k_proj = nn.Linear(width, keys * channels, bias=config.has_qkv_bias)
        self.v_proj = nn.Linear(width, keys * channels, bias=config.has_qkv_bias)
        self.o_proj = nn.Linear(queries * channels, width, bias=config.attention_bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(channels, config.rms_norm_eps)
            self.k_norm = RMSNorm(channels, config.rms_norm_eps)
        self.qk_norm, self.channels, self.layer = config.qk_norm, channels, layer
        self.window = config.sliding_window if config.is_sliding(layer) else None
        self.rope, self.scale = config.uses_rope(layer), config.attention_multiplier

    def forward(self, x: Tensor, where: "Where") -> Tensor:
        q = self.q_proj(x).unflatten(-1, (-1, self.channels))
        k = self.k_proj(x).unflatten(-1, (-1, self.channels))
        v = self.v_proj(x).unflatten(-1, (-1, self.channels))
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope:
            q, k = rotate(q, where.cos, where.sin), rotate(k, where.cos, where.sin)
        held = None
        if where.cache is not None:
            held = where.cache.put(self.layer, k, v, where.positions, where.counts)
        if where.slices is not None:
            q, k, v = where.slices.to_heads(q, k, v)
        if held is None:
            out = attend(q, k, v, where.documents, self.window, self.scale)
        else:
            mask = where.mask if self.window is None else where.window_mask
            out = attend_cached(q, *held, mask, self.scale)
        if where.slices is not None:
            out = where.slices.to_times(out)
        return self.o_proj(out.flatten(-2))


class MLP(nn.Module):
    """SwiGLU: down( silu(gate x) * up x ). Shazeer, arXiv:2002.05202, eq. 6."""

    def __init__(self, width: int, inner: int, bias: bool):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """x + m attention(x), then x + m mlp(x), with a norm on the input of each, on its output, or both.

    The norms bear Hugging Face's names, which depend on their company (all end in _layernorm):

        norms     attention's input   its output        MLP's input        its output
        before    input                                 post_attention                     Llama, Qwen3
        after                         post_attention                       post_feedforward  EXAONE 4.0
        both      input               post_attention    pre_feedforward    post_feedforward  Gemma 2

    m: residual_multiplier. HyperCLOVA X has both, under names of its own.
    """

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        width, before, after = config.hidden_size, config.has_norm_before, config.norm_after

        def norm() -> RMSNorm:
            return RMSNorm(width, config.rms_norm_eps)

        if before:
            self.input_layernorm = norm()
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = norm()
        if before and after:
            self.pre_feedforward_layernorm = norm()
        if config.is_moe(layer):
            inner = config.experts.shared_inner
            shared = MLP(width, inner, bias=False) if inner else None
            self.mlp = MoE(config.experts, width, layer, shared)
        else:
            self.mlp = MLP(width, config.intermediate_size, config.mlp_bias)
        if after:
            self.post_feedforward_layernorm = norm()
        self.before, self.after, self.multiplier = before, after, config.residual_multiplier

    @property
    def norms(self) -> tuple[RMSNorm | None, ...]:
        """Of attention's input and output and of the MLP's input and output."""
        if not self.after:
            return self.input_layernorm, None, self.post_attention_layernorm, None
        if not self.before:
            return None, self.post_attention_layernorm, None, self.post_feedforward_layernorm
        return (
            self.input_layernorm,
            self.post_attention_layernorm,
            self.pre_feedforward_layernorm,
            self.post_feedforward_layernorm,
        )

    def forward(self, x: Tensor, where: "Where") -> Tensor:
        attention_in, attention_out, mlp_in, mlp_out = self.norms
        x = self._add(x, self.self_attn(_by(attention_in, x), where), attention_out)
        return self._add(x, self.mlp(_by(mlp_in, x)), mlp_out)

    def _add(self, x: Tensor, out: Tensor, norm: RMSNorm | None) -> Tensor:
        out = _by(norm, out)
        return x + out if self.multiplier == 1 else torch.add(x, out, alpha=self.multiplier)


def _by(norm: RMSNorm | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


class MTP(nn.Module):
    """Hidden states for one token further ahead, out of those for the token before it.

        h'_t = block( W [ norm_e(embedding(x_{t+1})) ; norm_h(h_t) ] ),   norm(h'_t) predicts x_{t+2}

    Multi-token prediction as in K-EXAONE: DeepSeek-V3's (arXiv:2412.19437, eq. 21 to 23), with a dense
    block that sees everything, and embedding and head shared with the model. h is taken after the
    model's final norm, as the released models' servers do; the paper does not say.
    """

    def __init__(self, config: ModelConfig, number: int):
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.norm_embedding, self.norm_hidden = RMSNorm(width, eps), RMSNorm(width, eps)
        self.project = nn.Linear(2 * width, width, bias=False)
        self.block = Block(config, config.num_hidden_layers + number)
        self.norm = RMSNorm(width, eps)

    def forward(self, hidden: Tensor, embedded: Tensor, where: "Where") -> Tensor:
        both = torch.cat([self.norm_embedding(embedded), self.norm_hidden(hidden)], -1)
        return self.norm(self.block(self.project(both), where))


class Slices(Protocol):
    """The time axis divided among processes (model/exchange.py)."""

    def whole(self, x: Tensor) -> Tensor: ...

    def own(self, x: Tensor) -> Tensor: ...

    def to_heads(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...

    def to_times(self, x: Tensor) -> Tensor: ...


@dataclass
class Where:
    """What every layer needs to know of where the tokens stand; made once per forward pass.

    counts: [B] tokens of each row that are not padding, in a pass with a cache; None: all
    mask, window_mask: of the layers that see everything, and of the sliding ones
    slices: how the time axis is divided among processes; positions, cos and sin are then those of
    this process's slice, documents those of the whole rows
    """

    positions: Tensor
    cos: Tensor
    sin: Tensor
    documents: Documents | None = None
    cache: KVCache | None = None
    counts: Tensor | None = None
    mask: Tensor | None = None
    window_mask: Tensor | None = None
    slices: Slices | None = None


class Trunk(nn.Module):
    """Embedding, blocks and final norm; named as the weights of Llama and Qwen3 are.

    skip_alpha: one number for each skip, by the layer that it leads to.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = range(config.num_hidden_layers)
        self.layers = nn.ModuleList([Block(config, layer) for layer in layers])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.skip_alpha = nn.ParameterDict(
            {
                str(layer): nn.Parameter(torch.tensor(config.skip_alpha), config.skip_learned)
                for layer, _ in config.skips
            }
        )


class Decoder(nn.Module):
    """A causal language model behind the protocol of checkpoint.CausalLM.

    checkpointing: compute each block anew in the backward pass and keep its input only: one more
    forward pass for much less memory.
    slices: the tokens given are this process's slice of the time axis (exchange.share_time).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.mtp_modules:
            self.mtp = nn.ModuleList([MTP(config, each) for each in range(config.mtp_modules)])
        self.checkpointing = False
        self.slices: Slices | None = None

    @property
    def head(self) -> Tensor:
        """[V, D]; the embedding itself where the two are tied."""
        tied = self.config.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    @property
    def cap(self) -> float | None:
        """c, where the logits are c tanh(z / c) of z = hidden times head: losses must know."""
        return self.config.final_logit_softcapping

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., V] of hidden states [..., D]."""
        if hidden.numel() == hidden.shape[-1] and not torch.is_grad_enabled():
            # One token: a matrix-vector product takes a quarter of the time of a product of matrices
            # of which one has a single row (CPU, float32, V = 16384, D = 256: 0.6 ms against 2.1).
            z = torch.matmul(self.head, hidden.reshape(-1)).view(*hidden.shape[:-1], -1)
        else:
            z = F.linear(hidden, self.head)
        return z if self.cap is None else torch.tanh(z / self.cap) * self.cap

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """An empty cache for `rows` sequences of at most `capacity` tokens; sliding layers hold a
        window's length only.

        On a CPU in float32 whatever the weights are: attention of one query over bfloat16 keys takes
        longer there than over float32 keys (32 rows of 100 tokens: 0.3 ms against 0.2 a layer).
        """
        config, weight = self.config, self.model.embed_tokens.weight
        windows = [block.self_attn.window for block in self.model.layers]
        dtype = torch.float32 if weight.device.type == "cpu" else compute_dtype(weight)
        return KVCache(
            windows, rows, capacity, config.num_key_value_heads, config.head_dim, dtype,
            weight.device,
        )  # fmt: skip

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Hidden states [B, T, D], after the final norm, of tokens [B, T].

        segments [B, T]: 0 = padding, 1.. = document within the row. A token sees its own document
        only, and positions, unless given, restart with it. What comes out at padding means nothing.
        cache: the tokens continue its rows (positions follow from their lengths). Segments then only
        mark padding, which lies to the right, and rows of unequal length may be read together.

        logits_scaling is in the hidden states, so that hidden times head are the logits.
        """
        x = self._embedded(tokens)
        where = self.where(tokens, positions, segments, cache, x.dtype)
        skips = dict(self.config.skips)
        outputs = {-1: x} if skips else {}  # of the layers that a skip starts from
        for layer, block in enumerate(self.model.layers):
            if layer in skips:
                x = x + self.model.skip_alpha[str(layer)] * outputs[skips[layer]]
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, where, use_reentrant=False)
            else:
                x = block(x, where)
            if layer in skips.values():
                outputs[layer] = x
        if cache is not None:
            cache.advance(tokens.shape[1], where.counts)
        return self._scaled(self.model.norm(x))

    def ahead(
        self,
        hidden: Tensor,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
    ) -> list[Tensor]:
        """Hidden states [B, T, D] of each MTP module, out of what forward() gave for the same
        arguments: those of module n at t, times head, predict x_{t+2+n}.

        In the last 1 + n tokens of a document they mean nothing: the tokens they need are not there.
        """
        where = self.where(tokens, positions, segments, None, hidden.dtype)
        found = []
        for number, module in enumerate(getattr(self, "mtp", [])):
            embedded = self._embedded(tokens.roll(-1 - number, 1))
            hidden = self._scaled(module(hidden, embedded, where))
            found.append(hidden)
        return found

    def _embedded(self, tokens: Tensor) -> Tensor:
        x = self.model.embed_tokens(tokens)
        x = x.to(compute_dtype(x))
        multiplier = self.config.embedding_multiplier
        return x if multiplier == 1 else x * multiplier

    def _scaled(self, hidden: Tensor) -> Tensor:
        scaling = self.config.logits_scaling
        return hidden if scaling == 1 else hidden * scaling

    def where(
        self,
        tokens: Tensor,
        positions: Tensor | None,
        segments: Tensor | None,
        cache: KVCache | None,
        dtype: torch.dtype,
    ) -> Where:
        """What the layers are told of where these tokens stand; arguments as forward()'s."""
        config, slices = self.config, self.slices
        if slices is not None:
            assert cache is None and positions is not None, "slices of time are for training alone"
            tokens, positions = slices.whole(tokens), slices.whole(positions)
            segments = None if segments is None else slices.whole(segments)
        time = tokens.shape[1]
        documents = counts = lengths = None
        if cache is not None:
            counts = None if segments is None else (segments > 0).sum(1)
            if positions is None:
                positions = cache.lengths[:, None] + torch.arange(time, device=tokens.device)
        elif segments is not None:
            documents = documents_in(segments)
        if positions is None:
            positions = positions_in(tokens, segments if documents else None)
        if by_length(config) and cache is None:
            lengths = lengths_in(positions, segments)
        elif by_length(config):
            # A cache's keys stay as they were turned, so all are turned for the room there is.
            lengths = torch.full_like(positions, cache.capacity)
        if slices is not None:
            positions = slices.own(positions)
            lengths = None if lengths is None else slices.own(lengths)
        cos, sin = rotary(positions, config, dtype, lengths)
        where = Where(positions, cos, sin, documents, cache, counts, slices=slices)
        if cache is not None and cache.longest:
            group = config.num_attention_heads // config.num_key_value_heads
            stop = cache.longest + time
            where.mask = cached_mask(positions, stop, group, cache.dtype)
            where.window_mask = cache.window_mask(positions, counts, group)
        return where


def positions_in(tokens: Tensor, segments: Tensor | None) -> Tensor:
    """[B, T]: 0, 1, 2 ... from the start of each row, or of each run of equal segment numbers."""
    step = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    if segments is None:
        return step
    new = torch.ones_like(segments, dtype=torch.bool)
    new[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return step - torch.where(new, step, 0).cummax(1).values


def compute_dtype(x: Tensor) -> torch.dtype:
    """In which the products of x are computed here: autocast's dtype, else its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


RESIDUAL = ("o_proj.weight", "down_proj.weight", "experts.down")
"""The projections onto the residual stream."""


@torch.no_grad()
def initialise(model: Decoder, seed: int) -> Decoder:
    """Fresh weights: normal(0, 0.02), the two projections onto the residual stream of each layer
    divided by sqrt(2 L), norms one, biases zero, skips at skip_alpha. (GPT-2's scheme: Radford et al.
    2019, section 2.3.)

    Drawn in float32 from a generator of their own, parameter by parameter in the order of the
    names, so the weights depend on `seed` and the sizes alone.
    """
    generator = torch.Generator().manual_seed(seed)
    residual = 1 / math.sqrt(2 * model.config.num_hidden_layers)
    for name, weight in sorted(model.named_parameters()):
        if name.endswith(".bias"):
            weight.zero_()
        elif ".skip_alpha." in name:
            weight.fill_(model.config.skip_alpha)
        elif weight.dim() == 1:
            weight.fill_(1.0)
        else:
            onto_residual = name.endswith(RESIDUAL)
            std = 0.02 * (residual if onto_residual else 1.0)
            weight.copy_(torch.randn(weight.shape, generator=generator) * std)
    for buffer in model.buffers():  # the routers' selection biases
        buffer.zero_()
    return model
