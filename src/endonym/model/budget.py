"""What a decoder takes, by formula out of its configuration: parameters, operations, bytes. No torch.

Letters: D width, V vocabulary, H query heads, K key/value heads, C channels of a head, F inner width,
E experts a token passes, T tokens of one forward pass on one device.

Bytes are of this code, read off what each operation keeps for its backward pass, and within a tenth
of what autograd keeps on a CPU. Measured: steps of the benchmarks' 7M decoder and of one with experts
take 1.0 to 1.2 times the resident memory that is said here, float32 and bfloat16, with checkpointing
and without (docs/plan.md; tests/model/test_budget.py measures one again). Not measured: several GPUs.
"""

from dataclasses import dataclass, fields

from endonym.model.config import ModelConfig

MASTER, HALF = 4, 2
"""Bytes of a float32 and of a bfloat16 number. Weights, gradients and Adam's two moments are float32
in training (train/optim.py); under autocast the products and what they keep are bfloat16."""

CHUNK = 1024
"""Tokens whose logits exist at once: methods/nll.CHUNK, which brings torch with it."""


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
    """

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    copies: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    cache: float = 0.0
    teacher: float = 0.0

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
    tokens a token attends to, on average: (length + 1) / 2, less in a sliding layer. As in
    train/meter.py. The first term: arXiv:2001.08361, section 2.1. Recomputed layers do not count.

    mtp: with the loss of the MTP modules, each of which uses the head once more.
    """
    count, table = parameters(config), config.vocab_size * config.hidden_size
    products = count.active - (0 if config.tie_word_embeddings else table)
    layers = config.num_hidden_layers
    seen = sum(keys(config, layer, length) for layer in range(layers))
    if mtp:
        products += count.mtp + config.mtp_modules * table
        seen += config.mtp_modules * keys(config, layers, length)
    forward = 2 * products + 4 * config.num_attention_heads * config.head_dim * seen
    return float(forward * (3 if backward else 1))


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
) -> Memory:
    """Bytes on one of `devices` that share weights, gradients and moments evenly, with `tokens` in a
    forward pass there.

    half: products in bfloat16, as on a GPU; else all is float32. All parts are counted as if they
    stood at one time; in a step of a single forward pass the gradients come as activations go.
    MTP modules only lie there: no stage trains them, so they have neither gradient nor moments.
    """
    count, size = parameters(config), HALF if half else MASTER
    blocks = [_block(config, layer)[0] for layer in range(config.num_hidden_layers)]
    table, largest = config.vocab_size * config.hidden_size, max(blocks)
    if devices > 1:
        # Gathered: tables all the time, a block and the next one, the gradient of the one before.
        copies = size * (count.embedding + 3 * largest)
    else:
        untied = 0 if config.tie_word_embeddings else table
        copies = HALF * (count.total - untied) if half else 0
    chunk = min(CHUNK, tokens) * config.vocab_size * (HALF + MASTER if half else MASTER)
    return Memory(
        weights=MASTER * (count.total + count.mtp) / devices,
        gradients=MASTER * count.total / devices,
        optimizer=2 * MASTER * count.total / devices,
        copies=copies,
        activations=activation_bytes(config, tokens, size, checkpointing),
        # Of the loss: logits, the gradient of hidden states, the head's summed up and of one chunk.
        logits=chunk + size * tokens * config.hidden_size + (MASTER + size) * table,
        teacher=0.0 if teacher is None else _reading(teacher, tokens, devices),
    )


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
