"""What a decoder takes, by formula out of its configuration: parameters, operations, bytes. No torch.

Letters: D width, V vocabulary, H query heads, K key/value heads, C channels of a head, F inner width,
E experts a token passes, T tokens of one forward pass on one device.

Bytes are of this code, read off what each operation keeps for its backward pass, and within a tenth
of what autograd keeps on a CPU. Measured: steps of the benchmarks' 7M decoder and of one with experts
take 1.0 to 1.2 times the resident memory that is said here, float32 and bfloat16, with checkpointing
and without (docs/plan.md; tests/model/test_budget.py measures one again). Not measured: several GPUs.
"""

from dataclasses import dataclass, fields
from typing import Protocol

from endonym.model.config import ModelConfig

MASTER, HALF = 4, 2
"""Bytes of a float32 and of a bfloat16 number. Weights, gradients and Adam's two moments are float32
in training (train/optim.py); under autocast the products and what they keep are bfloat16."""

EIGHT_BITS, FOUR_BITS = 1 + 4 / 256, 0.5 + 1 / 64
"""Of a number in blocks with a scale each: torchao's moments (a float32 for 256), QLoRA's NF4 (8 bits
for 64; its second constants are left out, 0.0005)."""

CHUNK = 512
"""Tokens whose logits exist at once: methods/nll.CHUNK, which brings torch with it."""


class Adapting(Protocol):
    """What a budget reads of train/config.Adapter."""

    method: str
    rank: int
    targets: list[str]


@dataclass(frozen=True)
class Count:
    """Numbers of parameters.

    total:     all but the MTP modules, as reports count (K-EXAONE: 236B and 0.52B apart)
    active:    those that one token passes: the chosen experts and the shared part; both tables
    embedding: the table and, where it is not tied, the head
    mtp:       the MTP modules; embedding and head are shared with the model
    """

    total: int
    active: int
    embedding: int
    mtp: int


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    weights, gradients, optimizer: float32 in training, divided by the devices that share them
    copies:      bfloat16 copies of weights in use, and where weights are divided, the blocks at work
    activations: what the forward pass keeps for the backward pass
    logits:      one chunk of logits, and the gradients that the loss forms in its forward pass
    cache:       keys and values of what is being written
    teacher:     a second model that is only read
    average:     the running average of the weights
    """

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    copies: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    cache: float = 0.0
    teacher: float = 0.0
    average: float = 0.0

    @property
    def total(self) -> float:
        return sum(getattr(self, field.name) for field in fields(self))


def parameters(config: ModelConfig) -> Count:
    """The parameters of a Decoder of this configuration, to the last one.

        block = D C (2 H + 2 K) + 3 D F        the two together with norms, biases and, with experts,
                                               N (3 D F + D) for the N of them and their router

    The sigmoid router's bias is a buffer, learns by no gradient and is not counted.
    """
    table = config.vocab_size * config.hidden_size
    embedding = table if config.tie_word_embeddings else 2 * table
    around = embedding + config.hidden_size + len(config.skips)
    blocks = [_block(config, layer) for layer in range(config.num_hidden_layers)]
    width = config.hidden_size
    module = 3 * width + 2 * width**2 + _block(config, config.num_hidden_layers)[0]
    return Count(
        total=around + sum(whole for whole, _ in blocks),
        active=around + sum(active for _, active in blocks),
        embedding=embedding,
        mtp=config.mtp_modules * module,
    )


def flops_per_token(
    config: ModelConfig, length: int, *, backward: bool = True, mtp: bool = False
) -> float:
    """Floating-point operations of one token, in a document of `length` tokens.

        2 N + 4 A sum_layers keys       forward;  three times that with the backward pass: 6 N + ...

    N: active parameters but for the embedding table, unless it is the head; A = H C; keys: how many
    tokens a token attends to, on average: (length + 1) / 2, less in a sliding layer. The first term:
    arXiv:2001.08361, section 2.1. Recomputed layers do not count.

    mtp: with the loss of the MTP modules, each of which uses the head once more.
    """
    layers = config.num_hidden_layers
    seen = sum(keys(config, layer, length) for layer in range(layers))
    if mtp:
        seen += config.mtp_modules * keys(config, layers, length)
    around = 4 * config.num_attention_heads * config.head_dim * seen
    return float((2 * products(config, mtp=mtp) + around) * (3 if backward else 1))


def products(config: ModelConfig, *, mtp: bool = False) -> int:
    """N of flops_per_token: parameters that multiply a token's activations, those of experts that it
    does not pass left out. mtp: with the MTP modules, and the head once more for each."""
    count, table = parameters(config), config.vocab_size * config.hidden_size
    more = count.mtp + config.mtp_modules * table if mtp else 0
    return count.active - (0 if config.tie_word_embeddings else table) + more


def keys(config: ModelConfig, layer: int, length: int) -> float:
    """Tokens that a token of a document of `length` attends to in a layer, itself included: the mean."""
    window = config.sliding_window if config.is_sliding(layer) else None
    if window is None or window >= length:
        return (length + 1) / 2
    return window - window * (window - 1) / (2 * length)


def cache_bytes(config: ModelConfig, rows: int, capacity: int, size: int = HALF) -> float:
    """Keys and values of `rows` sequences of `capacity` tokens; sliding layers hold a window's worth."""
    slots = sum(
        min(capacity, config.sliding_window) if config.is_sliding(layer) else capacity
        for layer in range(config.num_hidden_layers)
    )
    return float(rows * slots * 2 * config.num_key_value_heads * config.head_dim * size)


def training_memory(
    config: ModelConfig,
    tokens: int,
    *,
    devices: int = 1,
    half: bool = True,
    checkpointing: bool = False,
    teacher: ModelConfig | None = None,
    optimizer: str = "adamw",
    ema: bool = False,
    mtp: bool = False,
    adapter: Adapting | None = None,
    offload: bool = False,
) -> Memory:
    """Bytes on one of `devices` that share weights, gradients and moments evenly, with `tokens` in a
    forward pass there.

    half: products in bfloat16, as on a GPU; else all is float32. All parts are counted as if they
    stood at one time; in a step of a single forward pass the gradients come as activations go.

    optimizer: adamw has two moments of 4 bytes; adamw8bit two of one byte and a scale for each 256;
               muon one of 4 bytes for the matrices of the blocks (their norms are counted with them)
               and AdamW's two for the tables
    ema:       a running average of what learns
    mtp:       MTP modules learn too; else they only lie there
    adapter:   its matrices learn beside frozen weights (train/config.Adapter); with "qlora" the
               blocks' frozen weights lie in 4 bits
    offload:   weights, gradients, moments and average lie in the host's memory; on the device are the
               parts at work, as where several devices share them (train/parallel.py)
    """
    count, size = parameters(config), HALF if half else MASTER
    blocks = [_block(config, layer)[0] for layer in range(config.num_hidden_layers)]
    table, largest = config.vocab_size * config.hidden_size, max(blocks)
    held = count.total + count.mtp
    learning = count.total + (count.mtp if mtp else 0)
    if adapter is not None:
        learning = adapter_parameters(config, adapter.rank, adapter.targets)
    if devices > 1 or offload:
        # Gathered: tables all the time, a block and the next one, the gradient of the one before.
        copies = size * (count.embedding + 3 * largest)
    else:
        untied = 0 if config.tie_word_embeddings else table
        copies = HALF * (count.total - untied) if half else 0
    chunk = min(CHUNK, tokens) * config.vocab_size * (HALF + MASTER if half else MASTER)
    # Of the loss: logits, the gradient of hidden states, the head's summed up, in bf16 one chunk's too.
    head = (MASTER + (HALF if half else 0)) * table if adapter is None else 0
    activations = activation_bytes(config, tokens, size, checkpointing)
    if mtp:
        module = _kept(config, config.num_hidden_layers, size) + 4 * size * config.hidden_size
        activations += tokens * config.mtp_modules * module
    weights, tables = MASTER * held, count.embedding
    if adapter is not None:
        weights, tables = weights + MASTER * learning, 0
        if adapter.method == "qlora":
            weights -= (MASTER - FOUR_BITS) * sum(blocks)
    part = 0.0 if offload else 1 / devices
    return Memory(
        weights=weights * part,
        gradients=MASTER * learning * part,
        optimizer=moments(optimizer, learning, tables) * part,
        copies=copies,
        activations=activations,
        logits=chunk + size * tokens * config.hidden_size + head,
        teacher=0.0 if teacher is None else _reading(teacher, tokens, devices),
        average=MASTER * learning * part if ema else 0.0,
    )


def adapter_parameters(config: ModelConfig, rank: int, targets: list[str]) -> int:
    """Numbers in the matrices A and B beside the linear layers named in `targets` (all-linear: beside
    all those of the blocks; experts have none, shared ones do)."""
    width, channels = config.hidden_size, config.head_dim
    queries, pairs = config.num_attention_heads * channels, config.num_key_value_heads * channels
    attention = {
        "q_proj": width + queries,
        "k_proj": width + pairs,
        "v_proj": width + pairs,
        "o_proj": queries + width,
    }
    total = 0
    for layer in range(config.num_hidden_layers):
        inner = config.intermediate_size
        if config.is_moe(layer):
            inner = config.experts.shared_inner
        mlp = {name: width + inner for name in ("gate_proj", "up_proj", "down_proj") if inner}
        sides = attention | mlp
        chosen = sides if targets == ["all-linear"] else set(targets) & set(sides)
        total += rank * sum(sides[name] for name in chosen)
    return total


def moments(optimizer: str, learning: int, tables: int) -> float:
    """Bytes that an optimizer keeps of `learning` parameters, `tables` of them in embedding and head."""
    if optimizer == "muon":
        return MASTER * (learning - tables) + 2 * MASTER * tables
    return 2 * learning * (EIGHT_BITS if optimizer == "adamw8bit" else MASTER)


def generation_memory(
    config: ModelConfig, rows: int, capacity: int, *, devices: int = 1, size: int = MASTER
) -> Memory:
    """Bytes on one of `devices` that share weights and rows evenly, while `rows` texts of `capacity`
    tokens are written. size: bytes of a weight and of a cached number (stages load float32)."""
    count = parameters(config)
    return Memory(
        weights=size * (count.total + count.mtp) / devices,
        logits=MASTER * -(-rows // devices) * config.vocab_size,
        cache=cache_bytes(config, -(-rows // devices), capacity, size),
    )


def activation_bytes(config: ModelConfig, tokens: int, size: int, checkpointing: bool) -> float:
    """What a forward pass over `tokens` keeps; with checkpointing the input of each block, and all of
    the one that is computed anew."""
    kept = [_kept(config, layer, size) for layer in range(config.num_hidden_layers)]
    ends = 2 * size * config.hidden_size  # the final norm's input and output
    inside = size * config.hidden_size * len(kept) + max(kept) if checkpointing else sum(kept)
    return float(tokens * (inside + ends))


def _kept(config: ModelConfig, layer: int, size: int) -> float:
    """Bytes that one token leaves in a block for the backward pass."""
    width, channels = config.hidden_size, config.head_dim
    queries, pairs = config.num_attention_heads * channels, config.num_key_value_heads * channels
    norms = 3 if config.has_norm_before and config.norm_after else 2
    numbers = norms * 2 * width  # what goes into each norm and each sublayer
    numbers += queries + 2 * pairs + queries  # q, k, v and the output of attention
    if config.qk_norm:
        numbers += queries + pairs  # before the norm
    if not config.is_moe(layer):
        numbers += 4 * config.intermediate_size  # gate, silu(gate), up, their product
        return size * numbers + MASTER * config.num_attention_heads
    experts = config.experts
    numbers += experts.chosen * (2 * width + 4 * experts.width) + 4 * experts.shared_inner
    router = MASTER * (width + 3 * experts.count)  # the input in float32, the scores
    return size * numbers + router + MASTER * config.num_attention_heads


def _reading(config: ModelConfig, tokens: int, devices: int) -> float:
    """A model in bfloat16 that reads `tokens` without gradient: its weights, a block at work, and the
    hidden states that a loss by chunks needs."""
    total = HALF * parameters(config).total
    largest = max(_block(config, layer)[0] for layer in range(config.num_hidden_layers))
    gathered = HALF * 2 * largest if devices > 1 else 0
    inner = max(config.intermediate_size, 2 * config.hidden_size)
    return total / devices + gathered + HALF * tokens * (config.hidden_size + 3 * inner)


def _block(config: ModelConfig, layer: int) -> tuple[int, int]:
    """Parameters of a block, and those of them that one token passes."""
    width, channels = config.hidden_size, config.head_dim
    queries, pairs = (
        config.num_attention_heads * channels,
        2 * config.num_key_value_heads * channels,
    )
    attention = width * (queries + pairs) + queries * width
    attention += (queries + pairs) * config.has_qkv_bias + width * config.attention_bias
    attention += 2 * channels * config.qk_norm
    norms = (4 if config.has_norm_before and config.norm_after else 2) * width
    if not config.is_moe(layer):
        inner = config.intermediate_size
        mlp = 3 * width * inner + (2 * inner + width) * config.mlp_bias
        return attention + norms + mlp, attention + norms + mlp
    experts = config.experts
    common = attention + norms + experts.count * width + 3 * width * experts.shared_inner
    one = 3 * width * experts.width
    return common + experts.count * one, common + experts.chosen * one
