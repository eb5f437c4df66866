"""What a decoder is built from. No torch here: recipes are read before anything heavy is imported."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from endonym.core.config import Config

SLIDING, FULL = "sliding_attention", "full_attention"


class RopeScaling(Config):
    """How the rotation's frequencies are changed for texts longer than those of pre-training.

    The fields and their defaults are transformers' (the equations: model/rope.py).
    """

    type: Literal["linear", "dynamic", "yarn", "llama3", "longrope"]
    factor: PositiveFloat | None = None
    """How many times longer. Left out (yarn, longrope): max_position_embeddings / original."""
    original_max_position_embeddings: PositiveInt | None = None
    """Of pre-training (yarn, llama3, longrope)."""
    beta_fast: PositiveFloat = 32.0
    """yarn: pairs that turn more often than this within the original length are left alone ..."""
    beta_slow: PositiveFloat = 1.0
    """... and those that turn less often than this are slowed down by the whole factor."""
    attention_factor: PositiveFloat | None = None
    """yarn, longrope: what cosine and sine are multiplied by. Left out: follows from the factor."""
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    """yarn: the bounds of the ramp are rounded to whole channels."""
    low_freq_factor: PositiveFloat = 1.0
    high_freq_factor: PositiveFloat = 4.0
    short_factor: list[PositiveFloat] | None = None
    """longrope: a divisor for each frequency, for texts of at most the original length ..."""
    long_factor: list[PositiveFloat] | None = None
    """... and for longer ones."""

    @model_validator(mode="after")
    def _whole(self):
        needed = {
            "linear": ["factor"],
            "dynamic": ["factor"],
            "yarn": ["original_max_position_embeddings"],
            "llama3": ["factor", "original_max_position_embeddings"],
            "longrope": ["original_max_position_embeddings", "short_factor", "long_factor"],
        }[self.type]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{' and '.join(missing)}, which {self.type} needs")
        if self.type == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("a high_freq_factor above low_freq_factor")
        return self


class Experts(Config):
    """A mixture of experts in the place of the MLP (model/experts.py)."""

    count: PositiveInt
    """N, the experts that are chosen from."""
    chosen: PositiveInt
    """K, the experts of one token."""
    width: PositiveInt
    """Inner width of one expert."""
    shared: int = Field(default=0, ge=0)
    """Experts that every token passes."""
    shared_width: PositiveInt | None = None
    """Inner width of all shared experts together. Left out: shared * width."""
    first_dense: int = Field(default=0, ge=0)
    """The layers 0 .. first_dense - 1 keep an MLP of intermediate_size."""
    router: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: Mixtral, Qwen3-MoE, JAI-1. sigmoid, with a bias that takes part in the choice alone:
    DeepSeek-V3, K-EXAONE, Solar Open."""
    renormalise: bool = True
    """The weights of a token's K experts sum to 1 (before `scaling`)."""
    scaling: PositiveFloat = 1.0
    """What the weights are multiplied by: routed_scaling_factor."""
    groups: PositiveInt = 1
    """The experts form groups of equal size, and a token chooses within ..."""
    chosen_groups: PositiveInt = 1
    """... the groups whose two best experts score highest together (DeepSeek-V3). Sigmoid only."""

    @property
    def shared_inner(self) -> int:
        """Inner width of the shared part; 0: there is none."""
        return (self.shared_width or self.shared * self.width) if self.shared else 0

    @model_validator(mode="after")
    def _fits(self):
        if self.chosen > self.count:
            raise ValueError(f"chosen ({self.chosen}) to be at most count ({self.count})")
        if self.shared_width and not self.shared:
            raise ValueError("shared experts, or no shared_width")
        if self.groups == 1:
            if self.chosen_groups != 1:
                raise ValueError("groups, or chosen_groups = 1")
            return self
        if self.router != "sigmoid":
            raise ValueError("groups = 1: only the sigmoid router knows groups")
        if self.count % self.groups or self.count // self.groups < 2:
            raise ValueError(f"count ({self.count}) to be {self.groups} groups of two or more")
        if self.chosen_groups > self.groups:
            raise ValueError(f"chosen_groups to be at most groups ({self.groups})")
        if self.chosen > self.chosen_groups * (self.count // self.groups):
            raise ValueError(f"at least chosen ({self.chosen}) experts in the chosen groups")
        return self


class ModelConfig(Config):
    """The sizes and the kind of a decoder, under Hugging Face's names where it has one."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    """Left out: as many as query heads.

    H = 4:  K = 4, each its own       K = 2, grouped           K = 1, one for all
            q q q q                   q q q q                  q q q q
            | | | |                   |/  |/                   | / / /
            k k k k                   k   k                    k
    """
    head_dim: PositiveInt
    """Left out: hidden_size / num_attention_heads."""
    max_position_embeddings: PositiveInt = 2048
    rope_theta: PositiveFloat = 10000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    """Biases in the four projections of attention."""
    mlp_bias: bool = False
    qk_norm: bool = False
    """RMSNorm over each head of q and k before the rotation, as in Qwen3."""
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    qkv_bias: bool | None = None
    """Biases of q, k and v where o has others: Qwen2 has them there alone. Left out: as attention_bias."""

    sliding_window: PositiveInt | None = None
    """W: in a sliding layer position t sees t - W + 1 .. t."""
    layer_types: list[Literal["sliding_attention", "full_attention"]] | None = None
    """One for each layer. Left out: all full."""
    rope_layers: Literal["all", "sliding"] = "all"
    """sliding: full layers know no positions (NoPE), as in EXAONE 4.0 and K-EXAONE."""
    rope_scaling: RopeScaling | None = None
    partial_rotary_factor: float = Field(default=1.0, gt=0, le=1)
    """The share of a head's channels, from the first, that is turned."""
    attention_multiplier: PositiveFloat | None = None
    """What q . k is multiplied by. Left out: 1 / sqrt(head_dim)."""

    norm_after: bool = False
    """Norms on the outputs of attention and MLP, before they are added; and none on their inputs, as
    in EXAONE 4.0, unless norm_before."""
    norm_before: bool | None = None
    """Norms on the inputs of attention and MLP. Left out: unless norm_after. Both: HyperCLOVA X."""
    embedding_multiplier: PositiveFloat = 1.0
    residual_multiplier: PositiveFloat = 1.0
    """What the outputs of attention and MLP are multiplied by before they are added."""
    logits_scaling: PositiveFloat = 1.0
    """What the logits are multiplied by, as in HyperCLOVA X (Granite's field of this name divides)."""
    final_logit_softcapping: PositiveFloat | None = None
    """c: logits z become c tanh(z / c), as in Gemma 2."""

    experts: Experts | None = None
    mtp_modules: int = Field(default=0, ge=0)
    """Modules that predict the tokens after the next one."""

    skips: list[tuple[int, int]] = []
    """(layer, source): the layer's input is x + alpha * the output of layer `source` (JAI-1's DUS.v2).
    Source -1 is the embedding."""
    skip_alpha: float = 1.0
    """The alphas of fresh weights, one for each skip."""
    skip_learned: bool = True

    @property
    def has_norm_before(self) -> bool:
        return not self.norm_after if self.norm_before is None else self.norm_before

    @property
    def has_qkv_bias(self) -> bool:
        return self.attention_bias if self.qkv_bias is None else self.qkv_bias

    @property
    def rotary_channels(self) -> int:
        """How many channels of a head are turned."""
        return int(self.head_dim * self.partial_rotary_factor)

    def is_sliding(self, layer: int) -> bool:
        """Whether a layer sees a window. Layers from num_hidden_layers on (MTP) see everything."""
        types = self.layer_types or []
        return layer < len(types) and types[layer] == SLIDING

    def uses_rope(self, layer: int) -> bool:
        return self.rope_layers == "all" or self.is_sliding(layer)

    def is_moe(self, layer: int) -> bool:
        """Whether a layer has experts. MTP modules (layers from num_hidden_layers on) have none."""
        return (
            self.experts is not None and self.experts.first_dense <= layer < self.num_hidden_layers
        )

    @model_validator(mode="before")
    @classmethod
    def _left_out(cls, given):
        if isinstance(given, dict) and given.get("num_attention_heads"):
            given = dict(given)
            heads, width = given["num_attention_heads"], given.get("hidden_size")
            if given.get("num_key_value_heads") is None:
                given["num_key_value_heads"] = heads
            if given.get("head_dim") is None and isinstance(width, int):
                if width % heads:
                    raise ValueError(f"head_dim, or a hidden_size ({width}) divisible by {heads}")
                given["head_dim"] = width // heads
        return given

    @model_validator(mode="after")
    def _fits(self):
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads to be a multiple of num_key_value_heads")
        if self.head_dim % 2:
            raise ValueError("an even head_dim: the rotation takes channels in pairs")
        if self.rotary_channels % 2 or not self.rotary_channels:
            raise ValueError("a partial_rotary_factor that leaves an even number of channels")
        if self.norm_before is False and not self.norm_after:
            raise ValueError("norms before attention and MLP, after them, or both")
        self._fits_layers()
        self._fits_rope()
        return self

    def _fits_layers(self):
        layers, types = self.num_hidden_layers, self.layer_types
        if types is not None and len(types) != layers:
            raise ValueError(f"layer_types for {layers} layers, not for {len(types)}")
        if (SLIDING in (types or ())) != (self.sliding_window is not None):
            raise ValueError(f"sliding_window together with layers that are {SLIDING!r}")
        if self.rope_layers == "sliding" and self.sliding_window is None:
            raise ValueError("rope_layers = 'all', or sliding layers: there are no positions else")
        if self.experts is not None and self.experts.first_dense >= layers:
            raise ValueError(f"experts.first_dense below num_hidden_layers ({layers})")
        for layer, source in self.skips:
            if not -1 <= source < layer < layers:
                raise ValueError(f"-1 <= source < layer < {layers} in the skip {layer, source}")
        if len({layer for layer, _ in self.skips}) != len(self.skips):
            raise ValueError("at most one skip for each layer")

    def _fits_rope(self):
        scaling, pairs = self.rope_scaling, self.rotary_channels // 2
        if scaling is None:
            return
        for name in ("short_factor", "long_factor"):
            given = getattr(scaling, name)
            if given is not None and len(given) != pairs:
                raise ValueError(f"rope_scaling.{name} with {pairs} factors, not {len(given)}")
        if scaling.type == "dynamic" and pairs < 2:
            raise ValueError("more than two rotated channels for a dynamic rope_scaling")
