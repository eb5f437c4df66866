"""What Hugging Face calls our decoders: one table a family, read in both directions.

A table says which field of config.json is which field of ModelConfig, what transformers (5.23) takes
for a field that is left out, what all models of the family have in common (model/hub.py reads all
this, both ways), and what the tensors are called on disk: layout() is both directions of that, since
each tensor of theirs is rows of ours, one stretch behind the other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from endonym.model.config import ModelConfig

Keys = Mapping[str, str | tuple[str, ...]]
"""Part of our name -> of theirs; the first that is found in a name counts, others stay as they are.

Several of ours with one name of theirs lie one behind the other there. Several names for one of ours
are its rows in equal shares, and * is the number of the expert that they belong to.
"""

EXPERTS: Keys = {
    ".mlp.router.weight": ".mlp.gate.weight",
    ".mlp.router.bias": ".mlp.gate.e_score_correction_bias",
    ".mlp.experts.gate_up": (
        ".mlp.experts.*.gate_proj.weight",
        ".mlp.experts.*.up_proj.weight",
    ),
    ".mlp.experts.down": (".mlp.experts.*.down_proj.weight",),
    ".mlp.shared.": ".mlp.shared_experts.",
}

FUSED: Keys = {
    **EXPERTS,
    ".mlp.experts.gate_up": ".mlp.experts.gate_up_proj",
    ".mlp.experts.down": ".mlp.experts.down_proj",
}
"""The names inside transformers 5, which folders bear too if they were saved as they lay in memory."""

SAME = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps",
    "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
"""Fields of every family, under the same name here."""


@dataclass(frozen=True)
class Family:
    """A model_type of transformers.

    fields:   their field -> ours, beside SAME; "experts.x" is the x of Experts
    defaults: theirs, for what config.json leaves out
    fixed:    our fields that are so in all models of the family
    window:   which layers are sliding: none; all, if there is a window; all or those after a number,
              if a switch is on (Qwen); by pattern, and the others without positions (EXAONE)
    dense:    how the layers without experts are told
    ropes:    the types of rope_scaling that it knows; None: all
    also:     other names that its tensors may have in a folder
    others:   other names of fields
    neutral:  fields that change no logit at these values, beside NEUTRAL
    whole:    hidden_size is a multiple of the heads, even where head_dim is given
    """

    architecture: str
    fields: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    keys: Callable[[ModelConfig], Keys] = lambda config: {}
    also: Keys = field(default_factory=dict)
    window: Literal["none", "all", "all switched", "switched", "pattern"] = "none"
    dense: Literal["none", "listed", "first"] = "none"
    ropes: tuple[str, ...] | None = None
    others: Mapping[str, str] = field(default_factory=dict)
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    whole: bool = False

    @property
    def known(self) -> set[str]:
        """The fields of config.json that are read."""
        by_trait = {"rope_theta", "rope_parameters", "rope_scaling", "partial_rotary_factor"}
        by_trait |= _WINDOW_FIELDS[self.window] | _DENSE_FIELDS[self.dense]
        if self.ropes is not None:
            by_trait.add("original_max_position_embeddings")
        return {*SAME, *self.fields, *by_trait}


_WINDOW_FIELDS = {
    "none": set(),
    "all": {"sliding_window"},
    "all switched": {"sliding_window", "use_sliding_window"},
    "switched": {"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"},
    "pattern": {"sliding_window", "sliding_window_pattern", "layer_types"},
}
_DENSE_FIELDS = {
    "none": set(),
    "listed": {"mlp_only_layers", "decoder_sparse_step"},
    "first": {"first_k_dense_replace", "mlp_layer_types", "is_moe_layer"},
}

_EXPERTS = {"num_experts_per_tok": "experts.chosen", "moe_intermediate_size": "experts.width"}
_SIGMOID = {
    **_EXPERTS,
    "norm_topk_prob": "experts.renormalise",
    "routed_scaling_factor": "experts.scaling",
    "n_group": "experts.groups",
    "topk_group": "experts.chosen_groups",
}
_SIGMOID_DEFAULTS = {"norm_topk_prob": True, "n_group": 1, "topk_group": 1}
_SIGMOID_NEUTRAL = {"scoring_func": ("sigmoid", None), "topk_method": ("noaux_tc", None)}
_QWEN = {"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "max_window_layers": 28}
_EXAONE = {"rms_norm_eps": 1e-5, "num_key_value_heads": 32, "sliding_window": 4096,
           "sliding_window_pattern": 4}  # fmt: skip
_LLAMA_IDS = {"bos_token_id": 1, "eos_token_id": 2}


def _peri_norms(config: ModelConfig) -> Keys:
    if not config.norm_after:
        return {}
    return {
        ".post_attention_layernorm.": ".post_norm1.",
        ".pre_feedforward_layernorm.": ".post_attention_layernorm.",
        ".post_feedforward_layernorm.": ".post_norm2.",
    }


FAMILIES: dict[str, Family] = {
    "llama": Family(
        "LlamaForCausalLM",
        fields={"attention_bias": "attention_bias", "mlp_bias": "mlp_bias"},
        defaults={"rms_norm_eps": 1e-6, "max_position_embeddings": 2048, **_LLAMA_IDS},
        whole=True,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        fields={"attention_bias": "attention_bias"},
        defaults={**_QWEN, "head_dim": 128, "num_key_value_heads": 32, "sliding_window": 4096},
        fixed={"qk_norm": True},
        window="switched",
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        defaults={**_QWEN, "num_key_value_heads": 32, "sliding_window": 4096},
        fixed={"qkv_bias": True},
        window="switched",
    ),
    "mistral": Family(
        "MistralForCausalLM",
        defaults={
            "rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "num_key_value_heads": 8,
            "sliding_window": 4096, **_LLAMA_IDS,
        },
        window="all",
    ),
    "mixtral": Family(
        "MixtralForCausalLM",
        fields={"num_local_experts": "experts.count", "num_experts_per_tok": "experts.chosen"},
        defaults={
            "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "num_key_value_heads": 8,
            "rope_theta": 1e6, "num_local_experts": 8, "num_experts_per_tok": 2, **_LLAMA_IDS,
        },
        keys=lambda config: {
            ".mlp.router.weight": ".block_sparse_moe.gate.weight",
            ".mlp.experts.gate_up": (
                ".block_sparse_moe.experts.*.w1.weight",
                ".block_sparse_moe.experts.*.w3.weight",
            ),
            ".mlp.experts.down": (".block_sparse_moe.experts.*.w2.weight",),
        },
        also=FUSED,
        window="all",
        others={"num_experts": "num_local_experts"},
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        fields={
            **_EXPERTS, "num_experts": "experts.count", "norm_topk_prob": "experts.renormalise",
            "attention_bias": "attention_bias",
        },
        defaults={
            **_QWEN, "num_key_value_heads": 4, "sliding_window": 4096, "num_experts": 128,
            "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": False,
        },
        fixed={"qk_norm": True},
        keys=lambda config: EXPERTS,
        also=FUSED,
        window="all switched",
        dense="listed",
        others={"num_local_experts": "num_experts"},
    ),
    "exaone4": Family(
        "Exaone4ForCausalLM",
        defaults={**_EXAONE, "max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 2},
        fixed={"qk_norm": True, "norm_after": True},
        window="pattern",
    ),
    "exaone_moe": Family(
        "ExaoneMoeForCausalLM",
        fields={
            **_SIGMOID, "num_experts": "experts.count", "num_shared_experts": "experts.shared",
            "num_nextn_predict_layers": "mtp_modules",
        },
        defaults={
            **_EXAONE,
            **_SIGMOID_DEFAULTS,
            "max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 53,
            "pad_token_id": 0, "num_experts": 64, "num_experts_per_tok": 8,
            "moe_intermediate_size": 1024, "num_shared_experts": 1, "routed_scaling_factor": 2.5,
            "first_k_dense_replace": 1,
        },
        fixed={"qk_norm": True, "experts.router": "sigmoid"},
        keys=lambda config: {
            **EXPERTS,
            ".mlp.router.bias": ".mlp.e_score_correction_bias",
            "mtp.0.norm_embedding.": "mtp.pre_fc_norm_embedding.",
            "mtp.0.norm_hidden.": "mtp.pre_fc_norm_hidden.",
            "mtp.0.project.": "mtp.fc.",
            "mtp.0.block.": "mtp.layers.0.",
            "mtp.0.norm.": "mtp.norm.",
        },
        also=FUSED,
        window="pattern",
        dense="first",
        neutral=_SIGMOID_NEUTRAL,
    ),
    "solar_open": Family(
        "SolarOpenForCausalLM",
        fields={
            **_SIGMOID, "n_routed_experts": "experts.count", "n_shared_experts": "experts.shared",
            "attention_bias": "qkv_bias",
        },
        defaults={
            **_SIGMOID_DEFAULTS,
            "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "num_key_value_heads": 8,
            "head_dim": 128, "rope_theta": 1e6, "n_routed_experts": 128, "num_experts_per_tok": 8,
            "moe_intermediate_size": 1280, "n_shared_experts": 1, "attention_bias": False,
        },
        fixed={"experts.router": "sigmoid"},
        keys=lambda config: EXPERTS,
        also=FUSED,
        others={"num_local_experts": "n_routed_experts"},
        neutral=_SIGMOID_NEUTRAL,
    ),
    "hyperclovax": Family(
        "HyperCLOVAXForCausalLM",
        fields={
            "attention_bias": "attention_bias", "mlp_bias": "mlp_bias",
            "embedding_multiplier": "embedding_multiplier", "logits_scaling": "logits_scaling",
            "residual_multiplier": "residual_multiplier", "use_post_norm": "norm_after",
            "attention_multiplier": "attention_multiplier",
        },
        defaults={
            "rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "use_post_norm": True,
            **_LLAMA_IDS,
        },
        fixed={"norm_before": True},
        keys=_peri_norms,
        whole=True,
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        defaults={
            "rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "bos_token_id": 1,
            "eos_token_id": 32000, "pad_token_id": 32000, "original_max_position_embeddings": 4096,
        },
        keys=lambda config: {
            ".self_attn.q_proj.": ".self_attn.qkv_proj.",
            ".self_attn.k_proj.": ".self_attn.qkv_proj.",
            ".self_attn.v_proj.": ".self_attn.qkv_proj.",
            ".mlp.gate_proj.": ".mlp.gate_up_proj.",
            ".mlp.up_proj.": ".mlp.gate_up_proj.",
        },
        window="all",
        ropes=("longrope",),
        whole=True,
    ),
}  # fmt: skip
"""By model_type; config_to() takes the first that has what the decoder has."""


@dataclass(frozen=True)
class Part:
    """A stretch of one of our tensors: of an expert's matrix or of the whole, rows start .. stop - 1."""

    name: str
    expert: int | None
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


Layout = dict[str, list[Part]]
"""Their tensors, each as the stretches of ours that it consists of, in order."""


def layout(
    config: ModelConfig, family: str, shapes: Mapping[str, Sequence[int]], *, also: bool = False
) -> Layout:
    """Where our tensors, of these shapes, lie in a family's folder; `also`: under its other names."""
    found: Layout = {}
    known = FAMILIES.get(family)
    keys = {} if known is None else known.also if also else known.keys(config)
    for name, shape in shapes.items():
        ours = next((part for part in keys if part in name), None)
        theirs = keys[ours] if ours is not None else ""
        if isinstance(theirs, str):
            new = name.replace(ours, theirs, 1) if ours is not None else name
            found.setdefault(new, []).append(Part(name, None, 0, shape[0] if shape else 1))
            continue
        share = shape[1] // len(theirs)
        for expert in range(shape[0]):
            for place, each in enumerate(theirs):
                new = name.replace(ours, each.replace("*", str(expert)), 1)
                found[new] = [Part(name, expert, place * share, (place + 1) * share)]
    return found


def shape(parts: Sequence[Part], shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """Of a tensor of theirs, out of the shapes of ours."""
    ours = shapes[parts[0].name]
    if not ours:
        return ()
    rest = ours[1:] if parts[0].expert is None else ours[2:]
    return (sum(part.rows for part in parts), *rest)
