"""config.json written: our configuration as a Hugging Face family's fields, or under a class of our own."""

from pathlib import Path
from typing import Any

from endonym.core.errors import DataError, RecipeError
from endonym.model.config import FULL, SLIDING, ModelConfig, RopeScaling
from endonym.model.families import FAMILIES, SAME, Family
from endonym.model.hub import OWN, ROPES, config_from

OWN_ARCHITECTURE = "EndonymForCausalLM"
"""The class that is only ours."""

REMOTE = "modeling_endonym.py"
"""The file beside its config.json with which transformers runs it, if told trust_remote_code=True."""


def config_to(config: ModelConfig, family: str | None = None) -> dict[str, Any]:
    """A config.json that transformers reads as a class of its own: of `family` where it has all that
    the decoder has, else of the first family that has. Fields are those of transformers 4 and 5.

    A RecipeError if none has: own_config() is then the only way.
    """
    nearest: tuple[int, str, list[str]] | None = None
    for name in dict.fromkeys([family, *FAMILIES] if family in FAMILIES else FAMILIES):
        raw, differences = _try(name, config)
        if not differences:
            return raw
        if nearest is None or len(differences) < nearest[0]:
            nearest = len(differences), name, differences
    _, name, differences = nearest
    raise RecipeError(
        "no Hugging Face family has this decoder",
        wanted=f"what {name} has, which is the nearest",
        got=", ".join(differences),
        do="save it under a class of its own, or leave out what is different",
    )


def own_config(config: ModelConfig) -> dict[str, Any]:
    """A config.json of our own class: transformers refuses it, rather than run something like it, unless
    it is told to trust the folder's code."""
    fields = config.model_dump(mode="json", exclude_defaults=True)
    return {
        "architectures": [OWN_ARCHITECTURE],
        "model_type": OWN,
        "auto_map": {
            "AutoConfig": f"{Path(REMOTE).stem}.EndonymConfig",
            "AutoModelForCausalLM": f"{Path(REMOTE).stem}.{OWN_ARCHITECTURE}",
        },
        **{name: getattr(config, name) for name in SAME[-3:]},
        OWN: {name: value for name, value in fields.items() if name not in SAME[-3:]},
    }


def _try(name: str, config: ModelConfig) -> tuple[dict[str, Any], list[str]]:
    """A config.json of this family, and what it would lose: our fields that come back otherwise."""
    family = FAMILIES[name]
    raw = _write(name, config)
    try:
        back = _meaning(config_from(raw))
    except (DataError, RecipeError) as error:
        return raw, [str(error.got or error.what)]
    wanted = _meaning(config)
    differences = [f"{each} = {wanted[each]!r}" for each in wanted if wanted[each] != back[each]]
    if family.whole and config.hidden_size % config.num_attention_heads:
        differences.append(f"hidden_size = {config.hidden_size}, no multiple of the heads")
    if family.whole and family.ropes and wanted["heads"] != config.hidden_size:
        differences.append(f"head_dim = {config.head_dim}")
    if config.experts is not None and "experts.router" in family.fixed and not wanted["shared"]:
        differences.append("experts.shared = 0")
    if name == "exaone_moe" and config.sliding_window is None:
        differences.append("sliding_window = None")
    return raw, differences


def _write(name: str, config: ModelConfig) -> dict[str, Any]:
    family, experts = FAMILIES[name], config.experts
    raw: dict[str, Any] = {"architectures": [family.architecture], "model_type": name}
    raw |= {each: getattr(config, each) for each in SAME}
    values = {**config.model_dump(), "qkv_bias": config.has_qkv_bias}
    if experts is not None:
        shared = experts.shared_inner // experts.width
        values |= {f"experts.{each}": value for each, value in experts.model_dump().items()}
        values["experts.shared"] = shared
    raw |= {theirs: values[ours] for theirs, ours in family.fields.items() if ours in values}
    if raw.get("attention_multiplier", 0) is None:
        raw["attention_multiplier"] = config.head_dim**-0.5
    if name == "mixtral" and experts is not None:
        raw["intermediate_size"] = experts.width
    if not raw.get("num_nextn_predict_layers", 1):
        del raw["num_nextn_predict_layers"]
    raw |= _write_window(family, config)
    if experts is not None and family.dense == "listed":
        raw |= {"mlp_only_layers": list(range(experts.first_dense)), "decoder_sparse_step": 1}
    elif experts is not None and family.dense == "first":
        first, layers = experts.first_dense, config.num_hidden_layers
        types = ["dense"] * first + ["sparse"] * (layers - first)
        raw |= {"first_k_dense_replace": first, "mlp_layer_types": types}
    return {**raw, **_write_rope(family, config), "hidden_act": "silu", "attention_dropout": 0.0}


def _write_window(family: Family, config: ModelConfig) -> dict[str, Any]:
    layers, width = config.num_hidden_layers, config.sliding_window
    if family.window == "none":
        return {}
    if "switched" in family.window and width is None:
        return {"use_sliding_window": False}
    found: dict[str, Any] = {"sliding_window": width}
    types = config.layer_types or [FULL] * layers
    if "switched" in family.window:
        found["use_sliding_window"] = True
    if family.window == "switched":
        found |= {"max_window_layers": types.index(SLIDING), "layer_types": types}
    elif family.window == "pattern":
        found["layer_types"] = types
        for every in range(2, layers + 1):
            if all(((at + 1) % every == 0) == (each == FULL) for at, each in enumerate(types)):
                found["sliding_window_pattern"] = every
                break
    return found


def _write_rope(family: Family, config: ModelConfig) -> dict[str, Any]:
    found: dict[str, Any] = {"rope_theta": config.rope_theta}
    if family.ropes is not None:
        found["partial_rotary_factor"] = config.partial_rotary_factor
    if config.rope_scaling is None:
        return found
    scaling = _scaling(config.rope_scaling)
    kind = scaling.pop("type")
    if family.ropes is not None:  # Phi-3 under transformers 4 takes these three and no others
        original = scaling.pop("original_max_position_embeddings", None)
        found |= {"original_max_position_embeddings": original}
        return {**found, "rope_scaling": {"type": kind, **scaling}}
    return {**found, "rope_scaling": {"rope_type": kind, **scaling}}


def _scaling(scaling: RopeScaling) -> dict[str, Any]:
    values = {name: getattr(scaling, name) for name in ROPES[scaling.type]}
    return {"type": scaling.type, **{k: v for k, v in values.items() if v is not None}}


def _meaning(config: ModelConfig) -> dict[str, Any]:
    """What two configurations must share to be the same decoder, however they say it."""
    found = config.model_dump(exclude={"experts", "rope_scaling", "skip_alpha", "skip_learned"})
    found |= {
        "heads": config.num_attention_heads * config.head_dim,
        "qkv_bias": config.has_qkv_bias,
        "norm_before": config.has_norm_before,
        "layer_types": [config.is_sliding(each) for each in range(config.num_hidden_layers)],
        "attention_multiplier": config.attention_multiplier or config.head_dim**-0.5,
        "rope_scaling": config.rope_scaling and _scaling(config.rope_scaling),
    }
    experts, shared = config.experts, 0
    if experts is not None:
        shared = experts.shared_inner
        if not experts.first_dense and not config.mtp_modules:
            del found["intermediate_size"]  # there is no MLP beside the experts
            found["intermediate_size"] = None
    found |= {"experts": experts and experts.model_dump(exclude={"shared", "shared_width"})}
    return {**found, "shared": shared}
