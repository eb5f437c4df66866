"""Pre-training on documents: from fresh weights, or on from a model (continued pre-training)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome, Slot, Stage
from endonym.data.phases import Phase
from endonym.model.config import ModelConfig
from endonym.stages.training import BalanceConfig
from endonym.tasks.needle import NeedleConfig
from endonym.train.config import Span, TrainConfig

if TYPE_CHECKING:
    from endonym.model.checkpoint import CausalLM
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.probe import Probe


class Architecture(ModelConfig):
    """The sizes of a fresh model."""

    vocab_size: int = 0
    """0: as many rows as the tokenizer needs."""


class PretrainConfig(TrainConfig):
    steps: int | None = Field(default=None, gt=0)
    """Optimizer steps; None: those of the phases."""
    architecture: Architecture | None = None
    """Of fresh weights; only without an input model."""
    phases: list[Phase] = []
    """Stretches of the run, each with its own mixture, thresholds on scores, length of rows and, where it
    says so, rate (data/phases.py). Empty: one, made of the settings here."""
    mixture: dict[str, float] = {}
    """Label of a text -> its share of the rows. Empty: every document once an epoch."""
    row_length: int = Field(default=4096, gt=1)
    """Tokens of a packed row, at most."""
    rows_per_step: int = Field(default=64, gt=0)
    never_truncate: bool = False
    """Refuse documents longer than a row, instead of going on in another row (K-EXAONE's long stage)."""
    balance: BalanceConfig = BalanceConfig()
    mtp_weight: float = Field(default=0.05, ge=0)
    """Of the multi-token prediction loss, where the model has such modules. K-EXAONE: 0.05."""
    validation_tokens: int = Field(default=20_000, gt=0)
    """Of each label of `validation`, read at every probe."""
    needles: NeedleConfig | None = None
    """A probe that looks for needles in the validation text of their language, or the almanac's."""


def pretrain(
    config: PretrainConfig,
    context: Context,
    out: Path,
    *,
    text: dict[str, Artifact],
    model: Artifact | None = None,
    tokenizer: Artifact | None = None,
    validation: dict[str, Artifact] | None = None,
) -> Outcome:
    """A model folder out of documents: every next token of every document is predicted.

    Documents are packed into rows without seeing one another; each ends with the end-of-document
    token. With `model`, its weights and tokenizer are the start; else `tokenizer` and
    `config.architecture` are needed. Rows longer than the model's context are refused: it is extended
    first (stage operate).

    validation: held-out documents by label, probed as config.probe_every says. The figures are then
    validation/bpb_<label> and, with `needles`, needles/needle_min and so on (eval/probes.py): these are
    the names that gates use.

    Figures of the record besides the loop's: those of training.drawn, and phases: their steps, tokens,
    thresholds and rates as they were asked for.
    """
    from endonym.train import launch

    if launch.wanted(context):
        inputs = {"text": text, "model": model, "tokenizer": tokenizer, "validation": validation}
        return launch.spread(STAGE, config, context, out, inputs)

    from endonym.data.document import Document
    from endonym.data.phased import phased
    from endonym.model import hf
    from endonym.model.device import settled
    from endonym.stages.training import NextTokens, drawn, exporter, finish, tokenised
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.loop import train

    if (model is None) == (config.architecture is None) or (model is None and tokenizer is None):
        raise RecipeError(
            "pre-training starts from a model, or from an architecture and a tokenizer",
            wanted='model = "@...", or tokenizer = "@..." with architecture = { ... }',
        )
    context = settled(context)
    folder = (tokenizer or model).path
    words = Tokenizer.load(folder)
    if model is not None:
        net = hf.load(model.path)
    else:
        rows = config.architecture.vocab_size or words.vocab_size
        shape = config.architecture.model_dump() | {"vocab_size": rows}
        net = hf.new(ModelConfig(**shape), seed=config.seed)
    phases = phases_of(config)
    _check_lengths(phases, config, net)
    stores = tokenised(text, "documents.parquet", Document, folder, context)
    _check_names(config.mixture, list(stores))
    loader = phased(
        stores,
        phases,
        rows_per_step=config.rows_per_step,
        row_length=config.row_length,
        seed=config.seed,
    )
    settings = scheduled(config, phases)
    figures = train(
        net,
        NextTokens(config.balance, config.mtp_weight),
        loader,
        settings,
        context,
        title="pretrain",
        probes=_probes(config, validation or {}, words, context),
        export=exporter(words),
    )
    figures |= drawn(loader, figures)
    if config.phases:
        figures["phases"] = [_told(phase, config) for phase in phases]
    return finish(net, words, out, context, figures, text, model)


def _check_names(mixture: dict[str, float], labels: list[str]) -> None:
    """The flat mixture shares out all texts; a phase's may leave some out."""
    if mixture and set(mixture) != set(labels):
        raise RecipeError(
            "the mixture does not name the texts", wanted=sorted(labels), got=sorted(mixture)
        )


def phases_of(config: PretrainConfig) -> list[Phase]:
    """The phases as they stand, or the one that the flat settings are. RecipeError where both are given."""
    if not config.phases:
        if config.steps is None:
            raise RecipeError("a run needs a length", wanted="steps, or phases")
        return [
            Phase(steps=config.steps, mixture=config.mixture, never_truncate=config.never_truncate)
        ]
    for name in ("steps", "mixture", "never_truncate"):
        if getattr(config, name):
            raise RecipeError(
                f"{name} belongs to each phase where there are phases",
                where=name,
                wanted=f"{name} in each of the phases alone",
            )
    return config.phases


def scheduled(config: PretrainConfig, phases: list[Phase]) -> TrainConfig:
    """The settings of the loop: the phases' steps together, and a span for each phase."""
    if not config.phases:
        return config
    if config.spans:
        raise RecipeError("phases make the spans of the rate", where="spans", do="leave spans out")
    spans = [
        Span(
            steps=phase.num_steps(config.rows_per_step, config.row_length),
            tokens_per_step=_rows(phase, config) * _length(phase, config),
            learning_rate=phase.learning_rate,
            schedule=phase.schedule,
            warmup=phase.warmup,
            decay=phase.decay,
            final_share=phase.final_share,
        )
        for phase in phases
    ]
    total = sum(span.steps for span in spans)
    return config.model_copy(update={"steps": total, "spans": spans})


def _rows(phase: Phase, config: PretrainConfig) -> int:
    return phase.rows_per_step or config.rows_per_step


def _length(phase: Phase, config: PretrainConfig) -> int:
    return phase.row_length or config.row_length


def _told(phase: Phase, config: PretrainConfig) -> dict[str, Any]:
    """A phase as the record tells it: what it was asked to be."""
    steps = phase.num_steps(config.rows_per_step, config.row_length)
    rates = ("learning_rate", "schedule", "warmup", "decay", "final_share")
    return {
        "name": phase.name,
        "steps": steps,
        "rows_per_step": _rows(phase, config),
        "row_length": _length(phase, config),
        "tokens": steps * _rows(phase, config) * _length(phase, config),
        "thresholds": {k: v.model_dump(exclude_none=True) for k, v in phase.thresholds.items()},
        "rate": {name: value for name in rates if (value := getattr(phase, name)) is not None},
    }


def _check_lengths(phases: list[Phase], config: PretrainConfig, net: "CausalLM") -> None:
    from endonym.eval.needles import longest

    for number, phase in enumerate(phases):
        if _length(phase, config) > longest(net.config):
            raise RecipeError(
                "rows are longer than the model's context",
                where=f"phases[{number}].row_length" if config.phases else "row_length",
                wanted=f"at most {longest(net.config)} tokens",
                got=_length(phase, config),
                do="extend the context first (stage operate, context = { length = ... }), "
                "or make shorter rows",
            )


def _probes(
    config: PretrainConfig, held_out: dict[str, Artifact], words: "Tokenizer", context: Context
) -> "list[Probe]":
    from endonym.eval.probes import needle_probe, validation_probe
    from endonym.stages.evaluate import haystack
    from endonym.stages.tokenizer import Texts

    probes = []
    if held_out:
        texts = {label: Texts({label: one}) for label, one in held_out.items()}
        probes.append(validation_probe(texts, words, context, tokens=config.validation_tokens))
    if config.needles:
        text = haystack(config.needles, held_out)
        probes.append(needle_probe(config.needles, text, words, context))
    return probes


STAGE = Stage(
    name="pretrain",
    version=1,
    kind="model",
    config=PretrainConfig,
    slots={
        "text": Slot("documents", many=True),
        "model": Slot("model", optional=True),
        "tokenizer": Slot("tokenizer", optional=True),
        "validation": Slot("documents", many=True, optional=True),
    },
    function=pretrain,
)
