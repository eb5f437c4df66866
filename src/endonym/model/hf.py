"""Hugging Face folders in and out: Llama and Qwen3 as our decoder, all others as transformers' own.

A family is native only where every field of its config.json is one that the decoder honours or one
that bears no meaning for the result; a field that is neither sends the folder to transformers.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from endonym.core.errors import DataError, RecipeError
from endonym.model.checkpoint import (
    SINGLE,
    CausalLM,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from endonym.model.config import ModelConfig
from endonym.model.decoder import Decoder, initialise

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    "qwen3": {
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768,
        "head_dim": 128,
        "num_key_value_heads": 32,
    },
}
"""What transformers takes for a field that config.json leaves out, where that is not ModelConfig's
default."""

HONOURED = frozenset(ModelConfig.model_fields) - {"qk_norm"}
"""Fields that ModelConfig has under the same name. (qk_norm follows from the family.)"""

MEANINGLESS = frozenset({
    "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache",
    "initializer_range", "_name_or_path", "name_or_path", "output_attentions",
    "output_hidden_states", "return_dict", "_attn_implementation", "is_decoder",
    "is_encoder_decoder", "id2label", "label2id", "problem_type", "chunk_size_feed_forward",
    "tie_encoder_decoder", "max_window_layers",
})  # fmt: skip
"""Fields that change no logit."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_dropout": (0, None),
    "pretraining_tp": (1, None),
    "rope_scaling": (None,),
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (1, None),
}
"""Fields that change no logit at these values."""

# Older exports carry the rotation's frequencies, which follow from rope_theta.
_DERIVED = "rotary_emb.inv_freq"


def new(config: ModelConfig, seed: int) -> Decoder:
    """A decoder with fresh weights (decoder.initialise)."""
    return initialise(_empty(config).to_empty(device="cpu"), seed)


def load(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    native: bool = True,
) -> CausalLM:
    """The model of a folder, its weights in `dtype` on `device`, in evaluation mode.

    native=False takes transformers' module even where our decoder could run it.
    """
    folder = Path(folder)
    raw = read_json(folder / "config.json")
    if not native or why_not_native(raw) is not None:
        from endonym.model.foreign import load_foreign

        return load_foreign(folder, device=device, dtype=dtype)
    config = config_from(raw, where=folder / "config.json")
    model = _empty(config)
    tensors = read_tensors(folder, str(device))
    wanted = dict(model.state_dict())
    found = {name: t.to(dtype) for name, t in tensors.items() if not name.endswith(_DERIVED)}
    if config.tie_word_embeddings:
        found.pop("lm_head.weight", None)
    _same_names(wanted, found, folder)
    model.load_state_dict(found, assign=True)
    return model.eval()


def save(
    model: CausalLM,
    folder: str | Path,
    *,
    eos_ids: Iterable[int] | None = None,
    bos_id: int | None = None,
    pad_id: int | None = None,
) -> None:
    """config.json, model.safetensors and generation_config.json, which transformers, vLLM and load()
    read.

    eos_ids: where generation stops; bos_id, pad_id: likewise for their roles. Left out, what the
    model's own configuration says stays.
    """
    folder = Path(folder)
    if not isinstance(model, Decoder):
        model.save(folder, eos_ids=eos_ids, bos_id=bos_id, pad_id=pad_id)
        return
    roles: dict[str, Any] = {}
    if eos_ids is not None:
        ids = sorted(eos_ids)
        roles["eos_token_id"] = ids[0] if len(ids) == 1 else ids
    if bos_id is not None:
        roles["bos_token_id"] = bos_id
    if pad_id is not None:
        roles["pad_token_id"] = pad_id
    raw = config_to(model.config.model_copy(update=roles), model.head.dtype)
    write_tensors(folder / SINGLE, dict(model.state_dict()))
    kept = ("bos_token_id", "eos_token_id", "pad_token_id")
    generation = {name: raw[name] for name in kept if raw[name] is not None}
    write_json(folder / "generation_config.json", generation)
    write_json(folder / "config.json", raw)


def why_not_native(raw: dict[str, Any]) -> str | None:
    """The first field of a config.json that our decoder does not honour; None if there is none."""
    family = raw.get("model_type")
    if family not in ARCHITECTURES:
        return f"model_type {family!r}"
    for name, value in raw.items():
        if name in MEANINGLESS or name in HONOURED:
            continue
        if name in NEUTRAL:
            if value not in NEUTRAL[name]:
                return f"{name} {value!r}"
        elif name == "rope_parameters":
            given = dict(value or {})
            given.pop("rope_theta", None)
            if given.pop("rope_type", "default") != "default" or given:
                return f"{name} {value!r}"
        elif name == "sliding_window":
            # Qwen3 writes the width of a window that use_sliding_window switches on.
            if value is not None and (family != "qwen3" or raw.get("use_sliding_window")):
                return f"{name} {value!r}"
        elif name == "layer_types":
            if set(value or []) - {"full_attention"}:
                return f"{name} {value!r}"
        else:
            return f"{name} {value!r}"
    return None


def config_from(raw: dict[str, Any], where: object = "config.json") -> ModelConfig:
    """Our configuration out of a native family's config.json."""
    reason = why_not_native(raw)
    if reason is not None:
        raise DataError(
            "our decoder cannot run this configuration", where=where, got=reason,
            wanted=f"one of {', '.join(ARCHITECTURES)} with neutral values elsewhere",
        )  # fmt: skip
    family = raw["model_type"]
    fields = {name: value for name, value in raw.items() if name in HONOURED}
    if "rope_theta" in (raw.get("rope_parameters") or {}):
        fields["rope_theta"] = raw["rope_parameters"]["rope_theta"]
    fields = {**DEFAULTS[family], **{k: v for k, v in fields.items() if v is not None}}
    return ModelConfig.read({**fields, "qk_norm": family == "qwen3"}, str(where))


def config_to(config: ModelConfig, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """A config.json that transformers 4 and 5 both read, out of our configuration."""
    if config.qk_norm and config.mlp_bias:
        raise RecipeError(
            "no Hugging Face family has this decoder", got="qk_norm and mlp_bias",
            wanted="Qwen3 (qk_norm) or Llama (mlp_bias)", do="switch one of them off",
        )  # fmt: skip
    family = "qwen3" if config.qk_norm else "llama"
    fields = config.model_dump()
    fields.pop("qk_norm")
    if family == "qwen3":
        fields.pop("mlp_bias")
    name = str(dtype).removeprefix("torch.")
    return {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        **fields,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "torch_dtype": name,
    }


def _empty(config: ModelConfig) -> Decoder:
    # On the meta device, so that no weight is drawn (from the global generator) to be thrown away.
    with torch.device("meta"):
        return Decoder(config)


def _same_names(wanted: dict[str, Tensor], found: dict[str, Tensor], folder: Path) -> None:
    for what, names in (
        ("weights are missing", wanted.keys() - found.keys()),
        (
            "weights are there that the configuration knows no place for",
            found.keys() - wanted.keys(),
        ),
    ):
        if names:
            some = ", ".join(sorted(names)[:4])
            raise DataError(what, where=folder, got=f"{len(names)}: {some} ...")
    for name, tensor in wanted.items():
        if tensor.shape != found[name].shape:
            raise DataError(
                f"{name} has another shape than config.json says",
                where=folder, wanted=tuple(tensor.shape), got=tuple(found[name].shape),
            )  # fmt: skip
