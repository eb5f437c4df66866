"""A longer context for a trained decoder: what of its configuration changes, all of it at once.

The weights stay as they are; what the model makes of positions it has never seen, training has to
show. So extend_context gives a configuration, and rebuilt the same weights under it.
"""

from collections.abc import Mapping
from typing import Any, Literal

from endonym.core.errors import RecipeError
from endonym.model.config import ModelConfig, RopeScaling
from endonym.model.decoder import Decoder
from endonym.surgery.graft import graft


def extend_context(
    config: ModelConfig,
    length: int,
    *,
    theta: float | Literal["ntk"] | None = None,
    scaling: str | Mapping[str, Any] | None = None,
    window: Literal["keep", "off"] = "keep",
) -> ModelConfig:
    """The configuration for texts of `length` tokens, with every field that depends on it.

    theta: another base of the rotation (JAI-1: 10,000 to 1,000,000). "ntk": the base at which the slowest
    pair turns as far over the new length as over the old one and the fastest does not change,

        theta' = theta s^(R/(R-2)),   s = length / trained, R rotated channels         (bloc97)

    scaling: a type of RopeScaling by name, or its fields; factor (length / trained) and
    original_max_position_embeddings (trained) are filled in. "trained" is the length before any scaling:
    a second extension starts from the first one's original, and replaces its scaling.

    Neither: positions go on as they were. That is K-EXAONE's case (8k to 32k to 256k): its rotated layers
    see a window of 128, and those that see everything know no positions.

    window="off": sliding layers see everything (JAI-1).

    max_position_embeddings becomes `length`, but for "dynamic": that rule stretches from
    max_position_embeddings on, which therefore stays the trained length.
    """
    trained = trained_length(config)
    if length < config.max_position_embeddings or length < trained:
        raise RecipeError(
            "a context can only be extended",
            where="length",
            wanted=f"at least {max(config.max_position_embeddings, trained)}",
            got=length,
        )
    if theta is not None and scaling is not None:
        raise RecipeError(
            "another base and a scaling do the same thing twice", do="give one of theta and scaling"
        )
    fields = config.model_dump()
    fields["max_position_embeddings"] = length
    factor = length / trained
    if theta is not None:
        fields["rope_scaling"] = None
        fields["rope_theta"] = _ntk(config, factor) if theta == "ntk" else theta
    elif scaling is not None:
        given = {"type": scaling} if isinstance(scaling, str) else dict(scaling)
        given.setdefault("factor", factor)
        if given.get("type") not in ("linear", "dynamic"):
            given.setdefault("original_max_position_embeddings", trained)
        fields["rope_scaling"] = RopeScaling.read(given, "scaling").model_dump()
        if given["type"] == "dynamic":
            fields["max_position_embeddings"] = trained
    elif config.rope_scaling is not None and length > config.max_position_embeddings:
        raise RecipeError(
            "the model's rotation is scaled for the length that it has",
            where="rope_scaling",
            got=config.rope_scaling.type,
            do=f'give scaling = "{config.rope_scaling.type}" for the new length, or a base theta',
        )
    if window == "off":
        if config.rope_layers == "sliding":
            raise RecipeError(
                "without its windows no layer of this model would know positions",
                where="window", got="rope_layers = 'sliding'", do='keep the windows: window = "keep"',
            )  # fmt: skip
        fields["sliding_window"] = fields["layer_types"] = None
    return ModelConfig.read(fields, "the extended configuration")


def trained_length(config: ModelConfig) -> int:
    """The length of the texts before any scaling of the rotation."""
    scaling = config.rope_scaling
    if scaling is None or scaling.type == "dynamic":
        return config.max_position_embeddings
    if scaling.original_max_position_embeddings:
        return scaling.original_max_position_embeddings
    return round(config.max_position_embeddings / scaling.factor)


def rebuilt(model: Decoder, config: ModelConfig) -> Decoder:
    """The model's own weights (not copies) in a decoder of a configuration from extend_context."""
    return graft(model, config, lambda _: model.state_dict())


def _ntk(config: ModelConfig, factor: float) -> float:
    channels = config.rotary_channels
    if channels < 4:
        raise RecipeError("no base fits two rotated channels", where="theta", got="ntk")
    return config.rope_theta * factor ** (channels / (channels - 2))
