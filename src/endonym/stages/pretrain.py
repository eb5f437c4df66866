"""Pre-training on documents: from fresh weights, or on from a model (continued pre-training)."""

from pathlib import Path

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome, Slot, Stage
from endonym.model.config import ModelConfig
from endonym.stages.training import BalanceConfig
from endonym.train.config import TrainConfig


class Architecture(ModelConfig):
    """The sizes of a fresh model."""

    vocab_size: int = 0
    """0: as many rows as the tokenizer needs."""


class PretrainConfig(TrainConfig):
    architecture: Architecture | None = None
    """Of fresh weights; only without an input model."""
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


def pretrain(
    config: PretrainConfig,
    context: Context,
    out: Path,
    *,
    text: dict[str, Artifact],
    model: Artifact | None = None,
    tokenizer: Artifact | None = None,
) -> Outcome:
    """A model folder out of documents: every next token of every document is predicted.

    Documents are packed into rows without seeing one another; each ends with the end-of-document
    token. With `model`, its weights and tokenizer are the start; else `tokenizer` and
    `config.architecture` are needed.
    """
    from endonym.data.document import Document, read_table
    from endonym.data.loader import Loader, TokenStore
    from endonym.model import hf
    from endonym.model.device import settled
    from endonym.stages.training import NextTokens, finish
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.loop import train

    if (model is None) == (config.architecture is None) or (model is None and tokenizer is None):
        raise RecipeError(
            "pre-training starts from a model, or from an architecture and a tokenizer",
            wanted='model = "@...", or tokenizer = "@..." with architecture = { ... }',
        )
    context = settled(context)
    words = Tokenizer.load((tokenizer or model).path)
    if model is not None:
        net = hf.load(model.path)
    else:
        rows = config.architecture.vocab_size or words.vocab_size
        sizes = config.architecture.model_dump() | {"vocab_size": rows}
        net = hf.new(ModelConfig(**sizes), seed=config.seed)
    stores = [
        TokenStore.build(
            context.scratch / label,
            read_table(one.file("documents.parquet"), Document),
            words,
            key=one.address,
        )
        for label, one in text.items()
    ]
    loader = Loader(
        stores,
        _weights(config.mixture, list(text)),
        rows_per_step=config.rows_per_step,
        row_length=config.row_length,
        seed=config.seed,
        never_truncate=config.never_truncate,
    )
    figures = train(
        net,
        NextTokens(config.balance, config.mtp_weight),
        loader,
        config,
        context,
        title="pretrain",
    )
    sources = {row.pop("source"): row for row in loader.report(config.steps)}
    return finish(net, words, out, context, figures | {"mixture": sources}, text, model)


def _weights(mixture: dict[str, float], labels: list[str]) -> list[float] | None:
    if not mixture:
        return None
    if set(mixture) != set(labels):
        raise RecipeError(
            "the mixture does not name the texts", wanted=sorted(labels), got=sorted(mixture)
        )
    return [mixture[label] for label in labels]


STAGE = Stage(
    name="pretrain",
    version=1,
    kind="model",
    config=PretrainConfig,
    slots={
        "text": Slot("documents", many=True),
        "model": Slot("model", optional=True),
        "tokenizer": Slot("tokenizer", optional=True),
    },
    function=pretrain,
)
