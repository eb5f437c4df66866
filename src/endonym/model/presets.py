"""Published models as configurations, with their sources. No torch.

A preset is what a plan starts from (`endonym plan`) and what the counts of a report are checked
against; it holds no weights, and special token ids only where the sizes' source names them.
"""

from endonym.core.config import nearest
from endonym.core.errors import RecipeError
from endonym.model.budget import Count, parameters
from endonym.model.config import Experts, ModelConfig

FULL, SLIDING = "full_attention", "sliding_attention"

PRESETS: dict[str, ModelConfig] = {
    "phi-3-medium": ModelConfig(
        vocab_size=32_064, hidden_size=5120, intermediate_size=17_920, num_hidden_layers=40,
        num_attention_heads=40, num_key_value_heads=10, max_position_embeddings=4096,
        rope_theta=10_000.0, rms_norm_eps=1e-5, sliding_window=2047, layer_types=[SLIDING] * 40,
    ),
    "jai-1": ModelConfig(
        vocab_size=64_000, hidden_size=5120, intermediate_size=17_920, num_hidden_layers=64,
        num_attention_heads=40, num_key_value_heads=10, max_position_embeddings=32_768,
        rope_theta=1_000_000.0, rms_norm_eps=1e-5,
        experts=Experts(count=4, chosen=2, width=17_920),
        skips=[(16, 11), (24, 19), (28, 19), (36, 31), (40, 31), (48, 43)],
    ),
    "k-exaone": ModelConfig(
        vocab_size=153_600, hidden_size=6144, intermediate_size=18_432, num_hidden_layers=48,
        num_attention_heads=64, num_key_value_heads=8, head_dim=128,
        max_position_embeddings=262_144, rope_theta=1_000_000.0, rms_norm_eps=1e-5, qk_norm=True,
        sliding_window=128, layer_types=[SLIDING, SLIDING, SLIDING, FULL] * 12,
        rope_layers="sliding", mtp_modules=1,
        experts=Experts(
            count=128, chosen=8, width=2048, shared=1, first_dense=1, router="sigmoid", scaling=2.5
        ),
    ),
    "solar-open": ModelConfig(
        vocab_size=196_608, hidden_size=4096, intermediate_size=10_240, num_hidden_layers=48,
        num_attention_heads=64, num_key_value_heads=8, head_dim=128,
        max_position_embeddings=131_072, rope_theta=1_000_000.0, rms_norm_eps=1e-5,
        experts=Experts(count=128, chosen=8, width=1280, shared=1, router="sigmoid"),
    ),
    "hyperclova-x-8b-omni": ModelConfig(
        vocab_size=200_704, hidden_size=4096, intermediate_size=12_288, num_hidden_layers=36,
        num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=32_768,
        rope_theta=5_000_000.0,
    ),
    "qwen3-4b": ModelConfig(
        vocab_size=151_936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36,
        num_attention_heads=32, num_key_value_heads=8, head_dim=128,
        max_position_embeddings=40_960, rope_theta=1_000_000.0, qk_norm=True,
        tie_word_embeddings=True,
    ),
    "qwen3-8b": ModelConfig(
        vocab_size=151_936, hidden_size=4096, intermediate_size=12_288, num_hidden_layers=36,
        num_attention_heads=32, num_key_value_heads=8, head_dim=128,
        max_position_embeddings=40_960, rope_theta=1_000_000.0, qk_norm=True,
    ),
    "qwen3-30b-a3b": ModelConfig(
        vocab_size=151_936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=48,
        num_attention_heads=32, num_key_value_heads=4, head_dim=128,
        max_position_embeddings=40_960, rope_theta=1_000_000.0, qk_norm=True,
        experts=Experts(count=128, chosen=8, width=768),
    ),
    "qwen3-235b-a22b": ModelConfig(
        vocab_size=151_936, hidden_size=4096, intermediate_size=12_288, num_hidden_layers=94,
        num_attention_heads=64, num_key_value_heads=4, head_dim=128,
        max_position_embeddings=40_960, rope_theta=1_000_000.0, qk_norm=True,
        experts=Experts(count=128, chosen=8, width=1536),
    ),
    "llama-3-8b": ModelConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=8192,
        rope_theta=500_000.0, rms_norm_eps=1e-5,
    ),
    "solar-10.7b": ModelConfig(
        vocab_size=32_000, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=48,
        num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=4096,
        rope_theta=10_000.0, rms_norm_eps=1e-5,
    ),
}  # fmt: skip

SOURCES: dict[str, str] = {
    "phi-3-medium": "config.json of microsoft/Phi-3-medium-4k-instruct; arXiv:2404.14219 says 14B.",
    "jai-1": "arXiv:2510.08620, sections 3.1.2 to 3.2 and table 2: phi-3-medium grown to 64 layers, four "
    "experts, two a token. 75B. The skips are those of depth.plan_v2 on table 2; the value of alpha is "
    "not published.",
    "k-exaone": "arXiv:2601.01739, section 2, and the model card: 236B, 23B active; the MTP module of 0.52B "
    "apart. Its dense width is that of the first layer and of the MTP module. Base of the rotation and "
    "eps as in EXAONE 4.0.",
    "solar-open": "arXiv:2601.07022, section 2: 102.6B, 12B active. intermediate_size is 8 experts' width: "
    "no layer is dense. Router and scaling as in transformers' solar_open.",
    "hyperclova-x-8b-omni": "The language model of naver-hyperclovax/HyperCLOVAX-SEED-Omni-8B: sizes from a "
    "dump of its config.json, read at second hand; arXiv:2601.01792 says 8B. Codes of sound and image are "
    "in its vocabulary. Its norms and multipliers could not be seen; those left out here change no size by "
    "more than 0.01 %. An MTP layer of the pre-training is not in the release.",
    "qwen3-4b": "arXiv:2505.09388, table 1, and config.json of Qwen/Qwen3-4B: 4.0B.",
    "qwen3-8b": "arXiv:2505.09388, table 1, and config.json of Qwen/Qwen3-8B: 8.2B.",
    "qwen3-30b-a3b": "arXiv:2505.09388, table 2, and config.json of Qwen/Qwen3-30B-A3B: 30.5B, 3.3B active.",
    "qwen3-235b-a22b": "arXiv:2505.09388, table 2, and config.json of Qwen/Qwen3-235B-A22B: 235B, 22B "
    "active.",
    "llama-3-8b": "arXiv:2407.21783, table 3, and config.json of meta-llama/Meta-Llama-3-8B: 8.03B.",
    "solar-10.7b": "arXiv:2312.15166, section 2, and config.json of upstage/SOLAR-10.7B-v1.0: 10.7B. JAI-1's "
    "translator and fluency model are of this size.",
}
"""Where each comes from, and the published figures."""


def preset(name: str) -> ModelConfig:
    """The configuration of a published model; RecipeError with the nearest name if there is none."""
    if name not in PRESETS:
        raise RecipeError(f"there is no preset {name!r}", do=nearest(name, list(PRESETS)))
    return PRESETS[name]


def count(name: str) -> Count:
    """How many parameters a published model has: total, active, embedding, mtp (budget.Count)."""
    return parameters(preset(name))
