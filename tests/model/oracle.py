"""Tiny random models of transformers, one or more of every family that is native and some that are not."""

from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")

TOKENS = torch.randint(11, (3, 20), generator=torch.Generator().manual_seed(0))

SIZES = dict(
    vocab_size=11, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, pad_token_id=None, bos_token_id=None, eos_token_id=3,
)  # fmt: skip


ROPE = {"rope_theta": 500.0, "rope_type": "default"}  # a forgotten theta shows
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SIGMOID = {**MOE, "routed_scaling_factor": 1.7}
S, F = "sliding_attention", "full_attention"

KINDS: dict[str, tuple[str, dict]] = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": 6}),
    "mistral, wide heads": ("Mistral", {"sliding_window": None, "head_dim": 16}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2, window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {"head_dim": 16}),  # 4 x 16 is not the width
    "qwen3_moe": ("Qwen3Moe", {**MOE, "mlp_only_layers": [0], "head_dim": 16}),
    "qwen3_moe, window": (
        "Qwen3Moe",
        {**MOE, "norm_topk_prob": True, "use_sliding_window": True, "sliding_window": 6},
    ),
    "phi3": ("Phi3", {"rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}}),
    "phi3, window": ("Phi3", {"sliding_window": 6, "tie_word_embeddings": True}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "sliding_window": 6}),
    "exaone4": ("Exaone4", {"sliding_window": 6, "layer_types": [S, S, F]}),
    "exaone4, no window": ("Exaone4", {"sliding_window": None, "layer_types": [F, F, F]}),
    "exaone_moe": (
        "ExaoneMoe",
        {**SIGMOID, "sliding_window": 6, "sliding_window_pattern": 3, "head_dim": 16},
    ),
    "solar_open": (
        "SolarOpen",
        {
            "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
            "head_dim": 16, "n_group": 4, "topk_group": 2, "n_shared_experts": 2,
            "attention_bias": True,
        },
    ),
    "hyperclovax": (
        "HyperCLOVAX",
        {
            "embedding_multiplier": 3.0, "logits_scaling": 0.3, "residual_multiplier": 0.7,
            "attention_multiplier": 0.2,
        },
    ),
    "hyperclovax, no norms after": (
        "HyperCLOVAX", {"use_post_norm": False, "attention_bias": True, "mlp_bias": True},
    ),
}  # fmt: skip
"""The native families, by a name for the variant."""

FOREIGN = {
    "Gemma3": {"head_dim": 16, "sliding_window": 6, "layer_types": [S, F, S]},
    "GPTNeoX": {},
    "GptOss": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "head_dim": 16,
        "sliding_window": 6,
    },
}


def oracle(family: str, folder: Path, **changes):
    """A random transformers model, saved in `folder`."""
    name, special = KINDS.get(family) or (family, FOREIGN[family])
    config = getattr(transformers, name + ("TextConfig" if name == "Gemma3" else "Config"))
    torch.manual_seed(0)
    settings = {**SIZES, "rope_parameters": dict(ROPE), **special, **changes}
    model = getattr(transformers, f"{name}ForCausalLM")(config(**settings)).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("e_score_correction_bias"):
            torch.nn.init.normal_(buffer, std=0.3)
    model.save_pretrained(folder)
    return model
