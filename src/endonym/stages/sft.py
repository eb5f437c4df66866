"""Supervised fine-tuning on conversations: the assistant's words are learnt, all others are read."""

from pathlib import Path

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.context import Context
from endonym.core.stage import Outcome, Slot, Stage
from endonym.train.config import TrainConfig


class SftConfig(TrainConfig):
    """Defaults: Typhoon-S, arXiv:2601.18129, as released (train_sft.sh)."""

    steps: int | None = Field(default=None, gt=0)
    """Optimizer steps; None: as many as `epochs` takes."""
    epochs: float = Field(default=2.0, gt=0)
    learning_rate: float = Field(default=2e-5, gt=0)
    row_length: int = Field(default=16384, gt=1)
    rows_per_step: int = Field(default=32, gt=0)
    """Packed rows of a step: 1 a device, 4 accumulated, 8 devices."""
    packed: bool = True
    """Several conversations in a row, blind to one another."""


def sft(
    config: SftConfig,
    context: Context,
    out: Path,
    *,
    model: Artifact,
    data: dict[str, Artifact],
) -> Outcome:
    """A model folder out of a model and conversations; the loss is on assistant tokens and turn ends.

    The release leaves open whether user turns are in the loss: its script passes no assistant-only
    flag (METHODS 2.3). We learn the assistant's tokens alone, the common practice.

    A template under which an assistant would never learn to stop is refused before anything is read.
    """
    from endonym.data.document import Conversation, read_table
    from endonym.data.loader import Loader, TokenStore
    from endonym.model import hf
    from endonym.model.device import settled
    from endonym.stages.training import finish, objective
    from endonym.tokenizer.chat import check_template
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.loop import train

    context = settled(context)
    words = Tokenizer.load(model.path)
    check_template(words)
    net = hf.load(model.path)
    stores = [
        TokenStore.build(
            context.scratch / label,
            read_table(one.file("conversations.parquet"), Conversation),
            words,
            key=one.address,
        )
        for label, one in data.items()
    ]
    loader = Loader(
        stores,
        rows_per_step=config.rows_per_step,
        row_length=config.row_length,
        seed=config.seed,
        packed=config.packed,
    )
    steps = config.steps or max(1, round(config.epochs * loader.steps_per_epoch))
    settings = config.model_copy(update={"steps": steps})
    figures = train(net, objective("nll"), loader, settings, context, title="sft")
    sources = {row.pop("source"): row for row in loader.report(steps)}
    return finish(net, words, out, context, figures | {"mixture": sources}, data, model)


STAGE = Stage(
    name="sft",
    version=1,
    kind="model",
    config=SftConfig,
    slots={"model": Slot("model"), "data": Slot("conversations", many=True)},
    function=sft,
)
