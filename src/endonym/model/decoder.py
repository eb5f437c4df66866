"""The decoder: tokens in, hidden states out. One forward for training, packed rows, reading a prompt
and writing the next token, so that what is sampled is what is trained.

Shapes: B rows, T time, D width, F inner width, V vocabulary, H query heads, K key/value heads, C
channels of a head.

To run it in bfloat16 keep the weights in float32 and call it under torch.autocast(device,
torch.bfloat16): all activations, the residual stream too, are then bfloat16, and the gradients reach
the float32 weights. A model loaded in bfloat16 (hf.load) needs no autocast; that is for inference.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from endonym.model.cache import KVCache
from endonym.model.config import ModelConfig
from endonym.model.kernels import (
    Documents,
    attend,
    attend_cached,
    cached_mask,
    documents_in,
    rms_norm,
    rotary,
    rotate,
)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Causal attention with rotary positions, grouped heads and, if asked for, normed q and k."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        width, channels, bias = config.hidden_size, config.head_dim, config.attention_bias
        queries, keys = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = nn.Linear(width, queries * channels, bias=bias)
        self.k_proj = nn.Linear(width, keys * channels, bias=bias)
        self.v_proj = nn.Linear(width, keys * channels, bias=bias)
        self.o_proj = nn.Linear(queries * channels, width, bias=bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(channels, config.rms_norm_eps)
            self.k_norm = RMSNorm(channels, config.rms_norm_eps)
        self.qk_norm, self.channels, self.layer = config.qk_norm, channels, layer

    def forward(self, x: Tensor, where: "Where") -> Tensor:
        q = self.q_proj(x).unflatten(-1, (-1, self.channels))
        k = self.k_proj(x).unflatten(-1, (-1, self.channels))
        v = self.v_proj(x).unflatten(-1, (-1, self.channels))
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, where.cos, where.sin), rotate(k, where.cos, where.sin)
        if where.cache is None:
            out = attend(q, k, v, where.documents)
        else:
            keys, values = where.cache.put(self.layer, k, v, where.positions)
            if where.cache.longest == 0:
                out = attend(q, k, v, None)
            else:
                out = attend_cached(q, keys, values, where.mask)
        return self.o_proj(out.flatten(-2))


class MLP(nn.Module):
    """SwiGLU: down( silu(gate x) * up x ). Shazeer, arXiv:2002.05202, eq. 6."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, where: "Where") -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), where)
        return x + self.mlp(self.post_attention_layernorm(x))


@dataclass
class Where:
    """What every layer needs to know of where the tokens stand; made once per forward pass."""

    positions: Tensor
    cos: Tensor
    sin: Tensor
    documents: Documents | None = None
    cache: KVCache | None = None
    mask: Tensor | None = None


class Trunk(nn.Module):
    """Embedding, blocks and final norm; named as the weights of Llama and Qwen3 are."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = range(config.num_hidden_layers)
        self.layers = nn.ModuleList([Block(config, layer) for layer in layers])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    """A causal language model behind the protocol of checkpoint.CausalLM.

    checkpointing: compute each block anew in the backward pass and keep its input only: one more
    forward pass for much less memory.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.checkpointing = False

    @property
    def head(self) -> Tensor:
        """[V, D]; the embedding itself where the two are tied."""
        tied = self.config.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., V] of hidden states [..., D]."""
        if hidden.numel() == hidden.shape[-1] and not torch.is_grad_enabled():
            # One token: a matrix-vector product takes a quarter of the time of a product of matrices
            # of which one has a single row (CPU, float32, V = 16384, D = 256: 0.6 ms against 2.1).
            return torch.matmul(self.head, hidden.reshape(-1)).view(*hidden.shape[:-1], -1)
        return F.linear(hidden, self.head)

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """An empty cache for `rows` sequences of at most `capacity` tokens.

        On a CPU in float32 whatever the weights are: attention of one query over bfloat16 keys takes
        longer there than over float32 keys (32 rows of 100 tokens: 0.3 ms against 0.2 a layer).
        """
        config, weight = self.config, self.model.embed_tokens.weight
        layers, heads = config.num_hidden_layers, config.num_key_value_heads
        dtype = torch.float32 if weight.device.type == "cpu" else compute_dtype(weight)
        return KVCache(layers, rows, capacity, heads, config.head_dim, dtype, weight.device)

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
        """
        documents = None
        if cache is not None:
            if positions is None:
                step = torch.arange(tokens.shape[1], device=tokens.device)
                positions = cache.lengths[:, None] + step
        elif segments is not None:
            documents = documents_in(segments)
        if positions is None:
            positions = positions_in(tokens, segments if documents else None)
        x = self.model.embed_tokens(tokens)
        x = x.to(compute_dtype(x))
        config = self.config
        cos, sin = rotary(positions, config.head_dim, config.rope_theta, x.dtype)
        where = Where(positions, cos, sin, documents, cache)
        if cache is not None and cache.longest:
            stop = cache.longest + tokens.shape[1]
            group = config.num_attention_heads // config.num_key_value_heads
            where.mask = cached_mask(positions, stop, group, cache.dtype)
        for block in self.model.layers:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, where, use_reentrant=False)
            else:
                x = block(x, where)
        if cache is not None:
            counts = None if segments is None else (segments > 0).sum(1)
            cache.advance(tokens.shape[1], counts)
        return self.model.norm(x)


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


@torch.no_grad()
def initialise(model: Decoder, seed: int) -> Decoder:
    """Fresh weights: normal(0, 0.02), the two projections onto the residual stream of each layer
    divided by sqrt(2 L), norms one, biases zero. (GPT-2's scheme: Radford et al. 2019, section 2.3.)

    Drawn in float32 from a generator of their own, parameter by parameter in the order of the
    names, so the weights depend on `seed` and the sizes alone.
    """
    generator = torch.Generator().manual_seed(seed)
    residual = 1 / math.sqrt(2 * model.config.num_hidden_layers)
    for name, weight in sorted(model.named_parameters()):
        if name.endswith(".bias"):
            weight.zero_()
        elif weight.dim() == 1:
            weight.fill_(1.0)
        else:
            onto_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.02 * (residual if onto_residual else 1.0)
            weight.copy_(torch.randn(weight.shape, generator=generator) * std)
    return model
