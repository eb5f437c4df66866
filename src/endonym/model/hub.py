"""config.json read: a Hugging Face family's fields into our configuration (the other way: to_hub.py).

A folder is native only where every field of its config.json is one of its family's table
(model/families.py) or one that bears no meaning for the logits; any other field sends it to
transformers (model/foreign.py).
"""

from collections.abc import Mapping
from typing import Any

from endonym.core.errors import DataError
from endonym.model.config import FULL, SLIDING, ModelConfig, RopeScaling
from endonym.model.families import FAMILIES, SAME, Family

OWN = "endonym"
"""The model_type of a decoder that no family has, under our own fields and names."""

MEANINGLESS = frozenset({
    "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache",
    "initializer_range", "_name_or_path", "name_or_path", "output_attentions",
    "output_hidden_states", "return_dict", "_attn_implementation", "_experts_implementation",
    "is_decoder", "is_encoder_decoder", "id2label", "label2id", "problem_type", "auto_map",
    "chunk_size_feed_forward", "tie_encoder_decoder", "max_window_layers", "output_router_logits",
    "router_aux_loss_coef", "end_token_id",
})  # fmt: skip
"""Fields that change no logit. (auto_map leads to code of the folder, which nobody here runs.)"""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_dropout": (0, None),
    "resid_pdrop": (0, None),
    "embd_pdrop": (0, None),
    "router_jitter_noise": (0, None),
    "pretraining_tp": (1, None),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "use_qk_norm": (False, None),
    "sliding_window": (None,),
    "use_sliding_window": (False, None),
    "first_k_dense_replace": (0, None),
    "num_nextn_predict_layers": (0, None),
    "final_logit_softcapping": (None,),
    "quantization_config": (None,),
}
"""Fields that change no logit at these values, where the family does not read them."""

_MAY_BE_NULL = {
    "bos_token_id", "eos_token_id", "pad_token_id", "head_dim", "num_key_value_heads",
    "sliding_window", "layer_types", "mlp_layer_types", "attention_multiplier",
}  # fmt: skip

_LISTS = {"layer_types": str, "mlp_layer_types": str, "is_moe_layer": int, "mlp_only_layers": int}
_WHOLE = {
    "hidden_size", "num_attention_heads", "num_hidden_layers", "max_window_layers",
    "first_k_dense_replace", "decoder_sparse_step", "num_nextn_predict_layers",
}  # fmt: skip
"""Fields that are looked into before ModelConfig checks them."""

ROPES = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": (
        "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor",
        "mscale", "mscale_all_dim", "truncate",
    ),
    "llama3": (
        "factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor",
    ),
    "longrope": (
        "short_factor", "long_factor", "factor", "attention_factor",
        "original_max_position_embeddings",
    ),
}  # fmt: skip
"""The fields of RopeScaling that each type reads."""


class Unlike(Exception):
    """A config.json says what our decoder is not."""


def why_not_native(raw: Mapping[str, Any]) -> str | None:
    """The first field of a config.json that our decoder does not honour; None if there is none."""
    if raw.get("model_type") == OWN:
        return None
    try:
        fields_from(raw)
    except Unlike as reason:
        return str(reason)
    return None


def config_from(raw: Mapping[str, Any], where: object = "config.json") -> ModelConfig:
    """Our configuration out of a native family's config.json, or out of what we wrote ourselves."""
    if raw.get("model_type") == OWN:
        fields = raw.get(OWN)
        if not isinstance(fields, dict):
            raise DataError(f"the field {OWN!r}, which holds all others, is missing", where=where)
        ids = {name: raw[name] for name in SAME[-3:] if name in raw}
        return ModelConfig.read({**fields, **ids}, str(where))
    try:
        fields = fields_from(raw)
    except Unlike as reason:
        raise DataError(
            "our decoder cannot run this configuration", where=where, got=reason,
            wanted=f"one of {', '.join(FAMILIES)} with neutral values elsewhere",
        ) from None  # fmt: skip
    config = ModelConfig.read(fields, str(where))
    if config.attention_multiplier == config.head_dim**-0.5:
        config = config.model_copy(update={"attention_multiplier": None})
    return config


def fields_from(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ModelConfig, not yet checked. Unlike: config.json has one that they cannot say."""
    model_type = raw.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise Unlike(f"model_type {model_type!r}")
    given = _one_name(family, raw)
    known, neutral = family.known, {**NEUTRAL, **family.neutral}
    for name, value in given.items():
        kind = _LISTS.get(name)
        if value is not None and (
            (name in _WHOLE and not isinstance(value, int))
            or (kind and not (isinstance(value, list) and all(isinstance(v, kind) for v in value)))
        ):
            raise Unlike(f"{name} {value!r}")
        if name in known or name in MEANINGLESS:
            continue
        if name == "layer_types" and not set(value or []) - {FULL}:
            continue
        if name not in neutral or value not in neutral[name]:
            raise Unlike(f"{name} {value!r}")
    full = {"rope_theta": 10000.0, **family.defaults}
    full |= {k: v for k, v in given.items() if v is not None or k in _MAY_BE_NULL}
    fields: dict[str, Any] = {name: full[name] for name in SAME if name in full}
    for ours, value in [
        *((ours, full[theirs]) for theirs, ours in family.fields.items() if theirs in full),
        *family.fixed.items(),
    ]:
        within = fields
        if ours.startswith("experts."):
            within, ours = fields.setdefault("experts", {}), ours.removeprefix("experts.")
        within[ours] = value
    fields |= _read_rope(family, full)
    fields |= _read_window(family, full)
    if "experts" in fields:
        fields["experts"]["first_dense"] = _read_dense(family, full)
        if model_type == "mixtral":
            fields["experts"]["width"] = fields.get("intermediate_size")
        # no layer of Solar Open has an MLP beside its experts
        fields.setdefault("intermediate_size", fields["experts"].get("width"))
    if fields.get("mtp_modules", 0) > 1:  # the hub's layout has room for one
        raise Unlike(f"num_nextn_predict_layers {fields['mtp_modules']!r}")
    return fields


def _one_name(family: Family, raw: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(raw)
    for other, name in family.others.items():
        if other in given:
            value = given.pop(other)
            if given.setdefault(name, value) != value:
                raise Unlike(f"{other} {value!r} beside {name} {given[name]!r}")
    return given


def _read_rope(family: Family, full: Mapping[str, Any]) -> dict[str, Any]:
    source = "rope_scaling" if full.get("rope_scaling") else "rope_parameters"
    given = full.get(source) or {}
    if not isinstance(given, dict):
        raise Unlike(f"{source} {given!r}")
    given = {name: value for name, value in given.items() if value is not None}
    theta = given.pop("rope_theta", full["rope_theta"])
    part = given.pop("partial_rotary_factor", full.get("partial_rotary_factor") or 1.0)
    kind = given.pop("type", "default")
    kind = given.pop("rope_type", kind)
    if family.ropes is not None and kind in ("su", "yarn"):  # what Phi-3 called it once
        kind = "longrope"
    if not isinstance(kind, str):
        raise Unlike(f"{source} {full[source]!r}")
    found: dict[str, Any] = {"rope_theta": theta}
    if part != 1:
        if family.ropes is None:
            raise Unlike(f"partial_rotary_factor {part!r} in {source}")
        found["partial_rotary_factor"] = part
    if kind == "default":
        if given:
            raise Unlike(f"{source} {full[source]!r}")
        return found
    if kind not in (family.ropes or ROPES):
        raise Unlike(f"{source} {full[source]!r}")
    if kind in ("llama3", "yarn", "longrope"):
        if family.ropes is not None:
            given["original_max_position_embeddings"] = full["original_max_position_embeddings"]
        given.setdefault("original_max_position_embeddings", full["max_position_embeddings"])
    if unknown := given.keys() - RopeScaling.model_fields.keys():
        raise Unlike(f"{source} {min(unknown)} {given[min(unknown)]!r}")
    return {**found, "rope_scaling": {"type": kind, **given}}


def _read_window(family: Family, full: Mapping[str, Any]) -> dict[str, Any]:
    layers, width, types = full.get("num_hidden_layers"), full.get("sliding_window"), None
    if family.window == "none" or not isinstance(layers, int):
        return {}
    if "switched" in family.window and not full.get("use_sliding_window"):
        width = None
    if family.window in ("switched", "pattern"):
        types = full.get("layer_types")
    if types is None and width is not None:
        if family.window == "switched":
            first = full["max_window_layers"]
            types = [SLIDING if layer >= first else FULL for layer in range(layers)]
        elif family.window == "pattern":
            every = full["sliding_window_pattern"]
            if not isinstance(every, int) or every < 1:
                raise Unlike(f"sliding_window_pattern {every!r} without layer_types")
            types = [SLIDING if (layer + 1) % every else FULL for layer in range(layers)]
        else:
            types = [SLIDING] * layers
    slides = SLIDING in (types or [])
    if slides and width is None:
        raise Unlike("layer_types that slide, and no sliding_window")
    if family.window == "pattern" and width is not None:
        if not slides:
            raise Unlike(f"sliding_window {width!r} with layers none of which slides")
        return {"sliding_window": width, "layer_types": types, "rope_layers": "sliding"}
    return {"sliding_window": width, "layer_types": types} if slides else {}


def _read_dense(family: Family, full: Mapping[str, Any]) -> int:
    layers = full.get("num_hidden_layers")
    if family.dense == "none" or not isinstance(layers, int):
        return 0
    if family.dense == "listed":
        listed, step = full.get("mlp_only_layers") or [], full.get("decoder_sparse_step", 1)
        if step != 1 or sorted(listed) != list(range(len(listed))):
            name = "decoder_sparse_step" if step != 1 else "mlp_only_layers"
            raise Unlike(f"{name} {full[name]!r}")
        first = len(listed)
    else:
        types = full.get("mlp_layer_types")
        first = full["first_k_dense_replace"]
        if types is not None:
            first = next((layer for layer, each in enumerate(types) if each != "dense"), layers)
            if list(types) != ["dense"] * first + ["sparse"] * (layers - first):
                raise Unlike(f"mlp_layer_types {types!r}")
        marks = full.get("is_moe_layer")
        if marks is not None and [bool(each) for each in marks] != [
            layer >= first for layer in range(layers)
        ]:
            raise Unlike(f"is_moe_layer {marks!r}")
    if first >= layers:
        raise Unlike(f"experts in none of {layers} layers")
    return first
