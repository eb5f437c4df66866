"""The sizes of a decoder. No torch here: recipes are read before anything heavy is imported."""

from pydantic import model_validator

from endonym.core.config import Config


class ModelConfig(Config):
    """The sizes of a decoder, under Hugging Face's names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    """Left out: as many as query heads.

    H = 4:  K = 4, each its own       K = 2, grouped           K = 1, one for all
            q q q q                   q q q q                  q q q q
            | | | |                   |/  |/                   | / / /
            k k k k                   k   k                    k
    """
    head_dim: int
    """Left out: hidden_size / num_attention_heads."""
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """RMSNorm over each head of q and k before the rotation, as in Qwen3."""
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

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
        return self
