"""Supervised fine-tuning on conversations: the assistant's words are learnt, all others are read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome, Slot, Stage
from endonym.data.phases import Phase, Sampling
from endonym.stages.training import BalanceConfig
from endonym.train.config import TrainConfig

if TYPE_CHECKING:
    from endonym.data.store import TokenStore
    from endonym.model.checkpoint import CausalLM


class SftConfig(TrainConfig):
    """Defaults: Typhoon-S, arXiv:2601.18129, as released (train_sft.sh)."""

    steps: int | None = Field(default=None, gt=0)
    """Optimizer steps; None: as many as `epochs` takes."""
    epochs: float = Field(default=2.0, gt=0)
    """Of all conversations together; with a mixture, so many rows as these epochs would have, shared out
    by its weights."""
    mixture: dict[str, float] = {}
    """Label of conversations -> its share of the rows; weights are relative (JAI-1's second recipe sums
    to 97.69 %). Empty: every conversation once an epoch."""
    max_epochs: float | dict[str, float] | None = None
    """The most times a label's conversations are seen, for all or by label; what exceeds it goes to the
    others by weight."""
    learning_rate: float = Field(default=2e-5, gt=0)
    row_length: int = Field(default=16384, gt=1)
    rows_per_step: int = Field(default=32, gt=0)
    """Packed rows of a step: 1 a device, 4 accumulated, 8 devices."""
    packed: bool = True
    """Several conversations in a row, blind to one another."""
    learn: Literal["assistant", "all"] = "assistant"
    """assistant: its words and turn ends, by the messages' and conversations' weights. all: every token
    of a conversation, as a plain text."""
    template: dict[str, bool | str | int | float] = {}
    """Variables of the chat template: keep_thinking, enable_thinking."""
    balance: BalanceConfig = BalanceConfig()


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
    flag (METHODS 2.3). We learn the assistant's tokens alone, the common practice; learn = "all" is
    the other reading.

    A template under which an assistant would never learn to stop is refused before anything is read,
    and conversations beyond the model's context before anything is learnt.
    """
    from endonym.train import launch

    if launch.wanted(context):
        return launch.spread(STAGE, config, context, out, {"model": model, "data": data})

    from endonym.data.document import Conversation
    from endonym.data.loader import Loader
    from endonym.data.phased import phased
    from endonym.model import hf
    from endonym.model.device import settled
    from endonym.stages.training import NextTokens, drawn, exporter, finish, tokenised
    from endonym.tokenizer.chat import check_template
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.loop import train

    context = settled(context)
    words = Tokenizer.load(model.path)
    check_template(words)
    net = hf.load(model.path)
    how: dict[str, Any] = {"learn": config.learn, "variables": config.template}
    stores = tokenised(data, "conversations.parquet", Conversation, model.path, context, **how)
    _check_lengths(stores, config, net)
    rows: dict[str, Any] = {"rows_per_step": config.rows_per_step, "row_length": config.row_length}
    whole = Loader(list(stores.values()), **rows, seed=config.seed, packed=config.packed)
    steps = config.steps or max(1, round(config.epochs * whole.steps_per_epoch))
    loader = whole
    if config.mixture or config.max_epochs is not None:
        mixed = Phase(
            steps=steps,
            mixture=config.mixture,
            sampling=Sampling(max_epochs=config.max_epochs),
            packed=config.packed,
        )
        loader = phased(stores, [mixed], **rows, seed=config.seed)
    figures = train(
        net,
        NextTokens(config.balance, mtp_weight=0.0),
        loader,
        config.model_copy(update={"steps": steps}),
        context,
        title="sft",
        export=exporter(words),
    )
    return finish(net, words, out, context, figures | drawn(loader, figures), data, model)


def _check_lengths(stores: "dict[str, TokenStore]", config: SftConfig, net: "CausalLM") -> None:
    """Of a conversation that is longer than a row only the beginning is learnt (data/packed.py)."""
    from endonym.eval.needles import longest

    limit = longest(net.config)
    for label, store in stores.items():
        read = int(max(store.lengths, default=1)) - 1  # the last token is only predicted
        length = min(read, config.row_length)
        if length > limit:
            raise RecipeError(
                "a conversation is longer than the model's context",
                where=f"data.{label}, row_length",
                wanted=f"at most {limit} tokens",
                got=length,
                do="extend the context first (stage operate, context = { length = ... }), or set "
                f"row_length = {limit}: of what is longer only the beginning is then learnt",
            )


STAGE = Stage(
    name="sft",
    version=1,
    kind="model",
    config=SftConfig,
    slots={"model": Slot("model"), "data": Slot("conversations", many=True)},
    function=sft,
)
