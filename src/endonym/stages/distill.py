"""Distillation: a student learns a teacher's whole next-token distribution, on its own answers and on given
ones."""

import shutil
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from endonym.core.artifact import Artifact
from endonym.core.config import Config, nearest
from endonym.core.context import Context
from endonym.core.errors import MachineError, RecipeError
from endonym.core.stage import Outcome, Slot, Stage
from endonym.stages.training import BalanceConfig
from endonym.train.config import TrainConfig


class Draw(Config):
    """How answers are drawn. Defaults: Typhoon-S as released: T 1.0, top-p 0.95, no top-k."""

    temperature: float = Field(default=1.0, ge=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, le=1)


class DistillConfig(TrainConfig):
    """Defaults: Typhoon-S, arXiv:2601.18129, as released (train_distill_8b_8gpu_30b.sh)."""

    steps: int | None = Field(default=None, gt=0)
    """Optimizer steps; None: as many as `epochs` takes."""
    epochs: float = Field(default=1.0, gt=0)
    """Of all prompts together; with a mixture, so many rows as these epochs would have, shared out by its
    weights."""
    mixture: dict[str, float] = {}
    """Label of prompts -> its share of the rows of a step (general, tool, target language); weights are
    relative. Empty: every prompt once an epoch."""
    learning_rate: float = Field(default=1e-6, gt=0)
    rows_per_step: int = Field(default=64, gt=0)
    """Prompts of a step: 1 a device, 8 accumulated, 8 devices. They are packed into fewer rows."""
    row_length: int = Field(default=4096, gt=1)
    """Tokens of a prompt with its answer, at most, and never more than either model's context. A longer
    conversation is left out and counted; a drawn answer has the room that its prompt leaves."""
    max_completion: int = Field(default=2048, gt=0)
    """Tokens of a drawn answer, at most."""
    lmbda: float = Field(default=0.25, ge=0, le=1)
    """Share of the rows that the student answers itself: so 75 % are answers of the data, with the
    teacher's distribution on them (METHODS 0.5)."""
    references: Literal["data", "teacher"] = "data"
    """Who answers the others: the data, or the teacher, drawn when they are needed."""
    turns: Literal["last", "every"] = "last"
    """Of a conversation the last assistant's turn is answered, as released, or every one, each after all
    that the data has before it."""
    sampling: Draw = Draw()
    beta: float = Field(default=0.0, ge=0, le=1)
    """0: forward KL(teacher || student); 1: reverse; between: Jensen-Shannon (methods/divergence.py)."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides both models' logits in the divergence."""
    top_k: int | None = Field(default=None, gt=0)
    """Compare the teacher's K most probable tokens alone, renormalised, as the release's option does;
    None: the whole vocabulary."""
    tail: bool = False
    """With top_k: all other tokens together are one more outcome."""
    cross_entropy: float = Field(default=0.0, ge=0)
    """Weight of - log Q(token) on the answers of the data (crossentropy_weight)."""
    aggregate: Literal["sequences", "tokens"] = "sequences"
    """sequences: every answer weighs the same, as in GKD's 1 / L and in micro-batches of one row;
    tokens: every token of the step does (TRL since 0.25, by num_items_in_batch)."""
    alignment: Literal["same", "spans"] = "same"
    """same: one tokenizer, ids and padding matched by name. spans: two, compared where their texts have
    a boundary in common (methods/spans.py)."""
    teacher_prompt_prefix: str = ""
    """A system text that the teacher alone reads, such as the wish that it answer in Thai."""
    template: dict[str, bool | str | int | float] = {}
    """Variables of the chat template."""
    balance: BalanceConfig = BalanceConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.tail and self.top_k is None:
            raise ValueError("tail goes with top_k, and only with it")
        if self.alignment == "spans" and self.top_k is not None:
            raise ValueError('top_k is not defined for alignment = "spans"')
        return self


def distill(
    config: DistillConfig,
    context: Context,
    out: Path,
    *,
    model: Artifact,
    teacher: Artifact | None,
    states: Artifact | None,
    data: dict[str, Artifact],
) -> Outcome:
    """A model folder out of a student, a teacher or its kept states, and prompts.

    Each step takes rows_per_step prompts, draws the student's answers to a share lmbda of them, and learns
    the teacher's distribution on every answer's tokens (rollouts/distilled.py, methods/distill.py).

    Of a conversation the last assistant's turn (or every one) is answered, by the data or anew, and all
    before it, tools and earlier turns included, is the prompt (rollouts/asked.py).

    With context.offload teacher and student are on the device in turn, the states between them in the
    host's memory. In several processes the teacher's weights are divided among them as the student's are.
    With `states` (stage "states") there is no teacher at all: the answers are the data's, so lmbda must be
    0, and what was too long for the cache is left out.

    With context.server the student's answers of a step are drawn by a server of its weights as they stand
    (rollouts/answering.py); a teacher's own answers are always our engine's.

    out/rollouts holds what was drawn, a file a step. Figures: train()'s, `mixture` and `drawn` of the
    prompts, too_long: prompts that were left out, and answered_by where a server was asked.
    """
    _check_slots(config, teacher, states)
    if context.layout.context > 1:
        raise MachineError(
            "the teacher reads whole rows, so rows cannot be shared",
            where="--layout", wanted="context 1", got=context.layout.context,
            do="share out weights and rows instead (shard, replicate)",
        )  # fmt: skip
    from endonym.train import launch

    if launch.wanted(context):
        inputs = {"model": model, "teacher": teacher, "states": states, "data": data}
        return launch.spread(STAGE, config, context, out, inputs)

    from endonym.engine.answered import answered_by
    from endonym.engine.sampler import Sampling
    from endonym.eval.needles import longest
    from endonym.model import hf
    from endonym.model.device import settled
    from endonym.rollouts.answering import server_of
    from endonym.rollouts.distilled import Distilled
    from endonym.stages.teaching import asked_stores, kept, live
    from endonym.stages.training import drawn, exporter, finish
    from endonym.tokenizer.chat import check_template
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.loop import train
    from endonym.train.parallel import ranks

    context = settled(context)
    here = ranks(context)
    words = Tokenizer.load(model.path)
    check_template(words)
    net = hf.load(model.path)
    asked = asked_stores(
        data, words, context, template=config.template, every=config.turns == "every"
    )
    if states is None:
        view = live(config, context, words, net, teacher, data, asked)
    else:
        view = kept(config, context, words, net, states, asked)
    sampling = Sampling(
        **config.sampling.model_dump(), max_tokens=config.max_completion, seed=config.seed
    )
    loader = Distilled(
        list(asked.values()),
        view.guide,
        _shares(config.mixture, list(asked)),
        rows_per_step=config.rows_per_step,
        row_length=min(config.row_length, longest(net.config)),
        rooms=view.rooms,
        lmbda=config.lmbda,
        by=config.references,
        sampling=sampling,
        stop_ids=words.stop_ids,
        known=view.known,
        aggregate=config.aggregate,
        with_given=config.cross_entropy > 0,
        parts=here.part[1],
        folder=context.scratch / "rollouts",
        identity=f"{(teacher or states).address} {config.teacher_prompt_prefix}",
        server=server_of(context, STAGE.name, model.address, config, exporter(words)),
    )
    if loader.too_long:
        context.console.note(
            f"{loader.too_long} prompts do not fit {loader.row_length} tokens with their answers, and are "
            "left out"
        )
    steps = config.steps or max(1, round(config.epochs * loader.steps_per_epoch))
    figures = train(
        net,
        view.objective,
        loader,
        config.model_copy(update={"steps": steps}),
        context,
        title="distill",
        export=exporter(words),
    )
    if (context.scratch / "rollouts").is_dir():
        # What a kill left half written begins with a dot.
        unfinished = shutil.ignore_patterns(".*")
        shutil.copytree(context.scratch / "rollouts", out / "rollouts", ignore=unfinished)
    seen = data | {"teacher": teacher or states}
    figures |= {"too_long": loader.too_long, **drawn(loader, figures)}
    figures |= answered_by(context.scratch)
    return finish(net, words, out, context, figures, seen, model)


def _check_slots(config: DistillConfig, teacher: Artifact | None, states: Artifact | None) -> None:
    if (teacher is None) == (states is None):
        raise RecipeError(
            "there is one source of what is to be learnt",
            where="teacher, states",
            wanted="a teacher, or its states",
            got="neither" if teacher is None else "both",
        )
    if states is None:
        return
    for name, wanted in (
        ("lmbda", 0),
        ("references", "data"),
        ("alignment", "same"),
        ("teacher_prompt_prefix", ""),
    ):
        if (got := getattr(config, name)) != wanted:
            raise RecipeError(
                "kept states are of the data's own answers, as they were when they were made",
                where=name, wanted=wanted, got=got,
                do=f"set {name} = {wanted!r}, or give the teacher itself",
            )  # fmt: skip


def _shares(mixture: dict[str, float], labels: list[str]) -> list[float] | None:
    for name in mixture:
        if name not in labels:
            raise RecipeError(
                f"the mixture names {name!r}, which is not plugged in",
                where=f"mixture.{name}", do=nearest(name, labels),
            )  # fmt: skip
    return [mixture.get(label, 0.0) for label in labels] if mixture else None


STAGE = Stage(
    name="distill",
    version=1,
    kind="model",
    config=DistillConfig,
    slots={
        "model": Slot("model"),
        "teacher": Slot("model", optional=True),
        "states": Slot("states", optional=True),
        "data": Slot("conversations or prompts or items", many=True),
    },
    function=distill,
)
