"""Surgery on a model's weights without training: vocabulary, depth, experts, context."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome, Slot, Stage

if TYPE_CHECKING:
    from endonym.model.checkpoint import CausalLM
    from endonym.model.decoder import Decoder
    from endonym.tokenizer.folder import Tokenizer


class VocabularyConfig(Config):
    init: Literal["mean", "overlap", "covariance", "random", "normal", "zero"] = "mean"
    """How a new row starts (surgery/vocab.py). mean: of the rows of the token's old pieces (JAI-1,
    section 3.1.1); the others are there to be compared with it."""
    multiple: int = Field(default=1, ge=1)
    """Rows are padded to a multiple of this (64 in phi-3's table)."""
    seed: int = 0


class DepthConfig(Config):
    """Depth up-scaling (surgery/depth.py): `keep` for the first and last layers (v1), `block` and
    `copies` for blocks repeated in place (v2)."""

    keep: int = Field(default=0, ge=0)
    """v1: so many first and so many last layers. SOLAR 10.7B: 24 of 32."""
    block: int = Field(default=0, ge=0)
    """v2: layers of a block. JAI-1: 4."""
    copies: list[int] = []
    """v2: how often each block stands. JAI-1: 1, 1, 1, 2, 3, 3, 2, 1, 1, 1."""
    skip: bool = True
    """v2: a skip from the previous block's end into each repetition."""
    alpha: float = 0.0
    """What a skip begins with; JAI-1 gives no value. 0 is plain repetition."""
    learned: bool = True


class ContextConfig(Config):
    """A longer context (surgery/context.py)."""

    length: int = Field(gt=0)
    theta: float | Literal["ntk"] | None = None
    """Another base of the rotation. JAI-1: 1e6."""
    scaling: str | dict[str, Any] | None = None
    """A rule by name (linear, dynamic, yarn, llama3, longrope), or with its fields."""
    window: Literal["keep", "off"] = "keep"
    """JAI-1 switches phi-3's window off."""


class ExpertsConfig(Config):
    """A mixture of experts out of MLPs (surgery/experts.py)."""

    of: Literal["snapshots", "copies", "random"] = "snapshots"
    """snapshots: one expert of each model in the input `snapshots`, in its order (JAI-1: 0, 2k, 4k, 6k)."""
    count: int | None = None
    """With copies and random."""
    chosen: int = Field(default=2, ge=1)
    """Experts of a token. JAI-1: 2."""
    noise: float = Field(default=0.0, ge=0)
    router_std: float = Field(default=0.02, ge=0)
    first_dense: int = Field(default=0, ge=0)
    seed: int = 0


class OperateConfig(Config):
    vocabulary: VocabularyConfig = VocabularyConfig()
    depth: DepthConfig | None = None
    context: ContextConfig | None = None
    experts: ExpertsConfig | None = None


def operate(
    config: OperateConfig,
    context: Context,
    out: Path,
    *,
    input: Artifact,
    tokenizer: Artifact | None = None,
    snapshots: dict[str, Artifact],
) -> Outcome:
    """The input model after the operations that are asked for, in this order:

        vocabulary   rows for the tokens that the input `tokenizer` adds; kept rows keep their bits
        depth        layers repeated
        context      positions
        experts      each MLP becomes several and a router

    Figures: parameters; rows before and after, and of the new tokens how many have no piece under the
    old tokenizer and so were drawn at random; layers before and after; the mean cosine of two experts.
    """
    from endonym.model import hf
    from endonym.tokenizer.folder import Tokenizer

    if tokenizer is None and not (config.depth or config.context or config.experts):
        raise RecipeError(
            "there is nothing to do",
            wanted='tokenizer = "@..." of a stage `extend`, or depth, context or experts',
        )
    model = hf.load(input.path)
    words = Tokenizer.load((tokenizer or input).path)
    figures: dict[str, Any] = {}
    if tokenizer is not None:
        model = _vocabulary(model, config.vocabulary, input, tokenizer, words, figures)
    if config.depth:
        figures["layers_before"] = model.config.num_hidden_layers
        model = _depth(_ours(model, "depth"), config.depth)
        figures["layers"] = model.config.num_hidden_layers
    if config.context:
        from endonym.surgery.context import extend_context, rebuilt

        settings = config.context.model_dump(exclude={"length"})
        model = _ours(model, "context")
        model = rebuilt(model, extend_context(model.config, config.context.length, **settings))
    if config.experts:
        from endonym.surgery.experts import likeness

        model = _experts(_ours(model, "experts"), config.experts, snapshots)
        if alike := likeness(model):  # empty where first_dense leaves no layer
            figures["expert_likeness"] = sum(alike.values()) / len(alike)
    hf.save(model, out, eos_ids=words.stop_ids, bos_id=words.bos_id)
    words.save(out)
    figures["parameters"] = sum(p.numel() for p in model.parameters())
    given = [input, *([tokenizer] if tokenizer else []), *snapshots.values()]
    return Outcome(figures, [licence for one in given for licence in one.record["licences"]])


def _vocabulary(
    model: "CausalLM",
    how: VocabularyConfig,
    input: Artifact,
    tokenizer: Artifact,
    words: "Tokenizer",
    figures: dict[str, Any],
) -> "CausalLM":
    from endonym.surgery.vocab import grow_rows, nearest, rows_for
    from endonym.tokenizer.extend import read_pieces
    from endonym.tokenizer.folder import Tokenizer

    _, pieces = read_pieces(tokenizer.path)
    before = model.config.vocab_size
    if how.init == "overlap":
        spelt = _bytes_of(words)
        new = {number: spelt[number] for number in pieces}
        pieces = nearest(_bytes_of(Tokenizer.load(input.path)), new)
    rows = rows_for(words.vocab_size, before, how.multiple)
    figures |= {
        "rows_before": before,
        "rows": rows,
        "without_pieces": sum(not parts for parts in pieces.values()),
    }
    return grow_rows(model, pieces, rows, init=how.init, seed=how.seed)


def _depth(model: "Decoder", how: DepthConfig) -> "Decoder":
    from endonym.surgery.depth import deepen, plan_v1, plan_v2

    layers = model.config.num_hidden_layers
    if bool(how.keep) == bool(how.block):
        raise RecipeError(
            "depth is up-scaled in one of two ways",
            wanted="keep = K, or block = B with copies = [...]",
        )
    if how.keep:
        return deepen(model, plan_v1(layers, how.keep))
    sources, skips = plan_v2(layers, how.block, how.copies)
    return deepen(model, sources, skips if how.skip else (), how.alpha, how.learned)


def _experts(model: "Decoder", how: ExpertsConfig, snapshots: dict[str, Artifact]) -> "Decoder":
    from endonym.model import hf
    from endonym.surgery.experts import to_experts

    if (how.of == "snapshots") != bool(snapshots):
        raise RecipeError(
            "experts of snapshots need snapshots, others none",
            wanted='snapshots = ["@...", ...] with of = "snapshots"',
            got=f"{len(snapshots)} snapshots with of = {how.of!r}",
        )
    others = [_ours(hf.load(one.path), "experts") for one in snapshots.values()] or how.of
    settings = how.model_dump(exclude={"of"})
    return to_experts(model, others, **settings)


def _ours(model: "CausalLM", operation: str) -> "Decoder":
    from endonym.model.decoder import Decoder

    if not isinstance(model, Decoder):
        raise RecipeError(
            f"{operation} is done on our own decoder, and this model runs as transformers' module",
            got=type(model.module).__name__,
            do="use a model of a family that is native (model/families.py)",
        )
    return model


def _bytes_of(words: "Tokenizer") -> dict[int, bytes]:
    """What each token of a BPE vocabulary stands for."""
    from endonym.tokenizer.units import Units

    state = json.loads(words.backend.to_str())
    units = Units.of(state)
    control = {token["content"] for token in state["added_tokens"]}
    return {
        number: token.encode() if token in control else units.raw(token)
        for token, number in words.backend.get_vocab(with_added_tokens=True).items()
    }


STAGE = Stage(
    name="operate",
    version=1,
    kind="model",
    config=OperateConfig,
    slots={
        "input": Slot("model"),
        "tokenizer": Slot("tokenizer", optional=True),
        "snapshots": Slot("model", many=True, optional=True),
    },
    function=operate,
)
