"""A reward model out of a language model and pairs of answers: the better one learns to score higher."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from endonym.core.artifact import Artifact, write_json
from endonym.core.context import Context
from endonym.core.errors import MachineError
from endonym.core.stage import Outcome, Slot, Stage
from endonym.train.config import TrainConfig

if TYPE_CHECKING:
    from endonym.eval.ranking import Ranked, Ranking
    from endonym.methods.batch import Loss, Rows
    from endonym.model.reward import Reward


class RewardModelConfig(TrainConfig):
    """Defaults: Llama 2, arXiv:2307.09288, section 3.2.2, which prints its settings (JAI-1's fluency model
    is only said to be a linear head trained by pairwise ranking; TRL's own default rate is 1e-4)."""

    steps: int | None = Field(default=None, gt=0)
    """Optimizer steps; None: as many as `epochs` takes."""
    epochs: float = Field(default=1.0, gt=0)
    """Llama 2: a second epoch overfits."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Llama 2: 1e-5, and 5e-6 for 70B."""
    warmup: float = Field(default=0.03, ge=0)
    final_share: float = Field(default=0.1, ge=0, le=1)
    eps: float = Field(default=1e-5, gt=0)
    """As the base model's pre-training (section 2.2)."""
    row_length: int = Field(default=4096, gt=1)
    """Tokens of a packed row, which both sides of a pair must fit into; the base model's context."""
    rows_per_step: int = Field(default=128, gt=0)
    """Llama 2: 512 pairs a step; that is rows with four pairs of a thousand tokens in each."""
    margins: bool = True
    """Subtract the margins that pairs bring along (Llama 2: how much better one was found)."""
    centering: float = Field(default=0.0, ge=0)
    """Coefficient of (r_chosen + r_rejected)^2. TRL recommends 0.01 where rewards shall lie about 0."""


class Pairwise:
    """The objective: Bradley-Terry on the scores at the last tokens of both sides (data/pairs.py)."""

    def __init__(self, margins: bool, centering: float):
        self.margins, self.centering = margins, centering

    def __call__(self, model: "Reward", rows: "Rows") -> "Loss":
        from endonym.methods.bradley_terry import bradley_terry
        from endonym.model.reward import rewards

        hidden = model(rows.tokens, positions=rows.positions, segments=rows.segments)
        ends = rows.weights > 0  # row by row in order: chosen, rejected, chosen, rejected ...
        found, labels, margins = rewards(hidden[ends], model.head), rows.labels[ends], None
        if self.margins:
            margins = rows.extra["margin"][ends][labels == 1]
        return bradley_terry(found[labels == 1], found[labels == 0], margins, self.centering)


def reward_model(
    config: RewardModelConfig,
    context: Context,
    out: Path,
    *,
    model: Artifact,
    data: dict[str, Artifact],
    test: dict[str, Artifact],
) -> Outcome:
    """A sequence classifier's folder (model/reward.py) out of a model and preferences.

    With `test`, pairs that are held out: ranking.json, and the figures accuracy (with interval), margin,
    and accuracy by task, which for fluency pairs is the kind of damage; while training the probe
    "test/accuracy", which gates may ask for. Pairs that do not fit a row are not learnt (`mixture`
    counts them), and of `test` those with a side longer than a row are not read.

    The artifact's kind is reward_model, so that no stage takes it for a language model.
    """
    from endonym.train import launch

    if context.layout.context > 1:
        raise MachineError(
            "both sides of a pair are scored where the row is whole, so rows cannot be shared",
            where="--layout", wanted="context 1", got=context.layout.context,
            do="share out weights and rows instead (shard, replicate)",
        )  # fmt: skip
    if launch.wanted(context):
        inputs = {"model": model, "data": data, "test": test}
        return launch.spread(STAGE, config, context, out, inputs)

    from endonym.data.document import Preference, read_table
    from endonym.data.pairs import PairLoader, PairStore, padding
    from endonym.eval.ranking import ranking
    from endonym.model import reward
    from endonym.model.device import settled
    from endonym.stages.training import drawn, finish
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.loop import train
    from endonym.train.parallel import ranks
    from endonym.train.probe import Probe

    context = settled(context)
    words = Tokenizer.load(model.path)
    pad = padding(words)
    words = Tokenizer(words.backend, words.named | {"pad_token": pad}, words.template)
    net = reward.start(model.path, config.seed)

    def rows(one: Artifact) -> Iterator[Preference]:
        return read_table(one.file("preferences.parquet"), Preference)

    def stores() -> list[PairStore]:
        return [
            PairStore.build(context.scratch / label, rows(one), words, key=one.address)
            for label, one in data.items()
        ]

    here = ranks(context)
    found = stores() if here.main else []
    here.barrier()
    loader = PairLoader(
        found or stores(),
        rows_per_step=config.rows_per_step,
        row_length=config.row_length,
        seed=config.seed,
    )
    held_out = [row for one in test.values() for row in rows(one)]

    def ranked(net: "Reward") -> "Ranking":
        return ranking(net, words, held_out, context, longest=config.row_length, title="test pairs")

    def export(net: "Reward", folder: Path) -> None:
        reward.save(net, folder, pad_id=words.special(pad), eos_ids=sorted(words.stop_ids))
        words.save(folder)

    is_probed = held_out and (config.probe_every or config.gates)
    steps = config.steps or max(1, round(config.epochs * loader.steps_per_epoch))
    figures = train(
        net,
        Pairwise(config.margins, config.centering),
        loader,
        config.model_copy(update={"steps": steps}),
        context,
        title="reward model",
        probes=[Probe("test", lambda net: _plain(ranked(net)))] if is_probed else [],
        export=export,
    )
    figures |= drawn(loader, figures)
    if held_out:
        found = ranked(net)
        write_json(out / "ranking.json", _told(found))
        figures |= _told(found)
    return finish(net, words, out, context, figures, {**data, **test}, model, export=export)


def _plain(found: "Ranking") -> dict[str, float]:
    return {"accuracy": found.whole.accuracy.value, "margin": found.whole.margin.value}


def _told(found: "Ranking") -> dict[str, Any]:
    """accuracy, margin and pairs of all, and by task and language, each with its interval."""

    def told(one: "Ranked") -> dict[str, Any]:
        return {
            "accuracy": one.accuracy.value,
            "accuracy_interval": [one.accuracy.low, one.accuracy.high],
            "margin": one.margin.value,
            "margin_interval": [one.margin.low, one.margin.high],
            "pairs": one.accuracy.n,
        }

    return told(found.whole) | {
        "unread": found.dropped,
        "by_task": {name: told(one) for name, one in found.by_task.items()},
        "by_language": {name: told(one) for name, one in found.by_language.items()},
    }


STAGE = Stage(
    name="reward_model",
    version=1,
    kind="reward_model",
    config=RewardModelConfig,
    slots={
        "model": Slot("model"),
        "data": Slot("preferences", many=True),
        "test": Slot("preferences", many=True, optional=True),
    },
    function=reward_model,
)
