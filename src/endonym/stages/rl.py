"""Reinforcement learning from rewards: GRPO, with knowledge injected beside it, with tools or without."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from endonym.core.artifact import Artifact, sha256_file
from endonym.core.config import Config, ExternalPath
from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.core.stage import Outcome, Slot, Stage
from endonym.stages.shelf import AgentConfig, opened
from endonym.train.config import Curve, Share, TrainConfig

if TYPE_CHECKING:
    from endonym.data.document import Prompt
    from endonym.methods.batch import Loss, Rows
    from endonym.methods.grpo import Policy
    from endonym.model.checkpoint import CausalLM
    from endonym.rollouts.draw import Plan
    from endonym.rollouts.environment import Environment
    from endonym.rollouts.text import Text
    from endonym.tokenizer.folder import Tokenizer


class RolloutSampling(Config):
    """How answers are drawn; the filters in transformers' order, as engine/sampler.py has them."""

    temperature: float = Field(default=0.7, gt=0)
    """Log-probabilities are taken at it too."""
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, lt=1)
    max_tokens: int = Field(default=4096, gt=0)
    """Of an answer; with tools, of one turn."""

    @property
    def truncates(self) -> bool:
        """Some tokens cannot be drawn at all."""
        return bool(self.top_k) or self.top_p < 1 or self.min_p > 0


class InkConfig(Config):
    """The text of InK-GRPO (methods/ink_grpo.py), where any is plugged in."""

    lmbda: float = Field(default=0.1, ge=0)
    """Its weight beside GRPO's loss (the scripts' SFT_COEFF). 0 is GRPO itself."""
    rho: float = Field(default=0.6, ge=0, le=1)
    """Share of the steps that have it (SFT_BETA)."""
    rows: int = Field(default=64, gt=0)
    """Conversations or documents of such a step; 16 in the agentic script."""
    row_length: int = Field(default=6144, gt=1)
    """The most tokens of one."""
    mixture: dict[str, float] = {}
    """Label -> share of the rows. Empty: every sequence once an epoch."""


class RlConfig(TrainConfig):
    """Defaults: single-turn InK-GRPO as Typhoon-S released it, arXiv:2601.18129, verl/exp/rl_sft/nitibench;
    what its script leaves open is verl's default.

    Its agentic run (verl/exp/agent/nitibench) differs in

        epochs = 1, updates = 4, dual_clip = 3, row_length = 10240
        sampling = { temperature = 1.0, max_tokens = 8192 },  ink = { rows = 16 }

    The scripts filter no groups (dynamic = false).
    """

    objective: Literal["grpo"] = "grpo"
    steps: int | None = Field(default=None, gt=0)
    """Optimizer steps; None: as many as `epochs` takes."""
    epochs: float = Field(default=2.0, gt=0)
    """Of all prompts together, groups that dynamic filtering puts aside not counted."""
    mixture: dict[str, float] = {}
    """Label of prompts -> its share of them. Empty: every prompt once an epoch."""
    prompts_per_step: int = Field(default=32, gt=0)
    """Of a batch of rollouts."""
    group: int = Field(default=8, gt=1)
    """Answers to each prompt."""
    updates: int = Field(default=1, gt=0)
    """Optimizer steps of a batch, each with its share of the groups."""
    sampling: RolloutSampling = RolloutSampling()
    reward: dict[str, float | dict[str, Any]]
    """Part -> its weight, or { weight = ..., settings } (rewards/mix.py)."""
    own: dict[str, ExternalPath] = {}
    """Part -> the Python file that defines a function of that name, with TRL's signature."""

    clip_low: float = Field(default=0.2, ge=0, lt=1)
    clip_high: float = Field(default=0.24, ge=0)
    """Above clip_low: clip-higher (DAPO: .28)."""
    dual_clip: float | None = Field(default=None, gt=1)
    """verl's 3; without effect at updates = 1, as are the clips."""
    aggregate: Literal["tokens", "sequences", "constant"] = "tokens"
    """Every drawn token alike (DAPO), every answer alike (GRPO), or divided by the longest possible
    answer (Dr. GRPO)."""
    scale: Literal["std", "none", "batch"] = "std"
    """Of the advantages: by the group's deviation (GRPO), not at all (Dr. GRPO), by the batch's."""
    beta: float = Field(default=0.0, ge=0)
    """Of the KL to the start model, which is then held a second time."""
    old: Literal["sampler", "trainer"] = "sampler"
    """Whose log-probabilities are the ratio's denominator from the second update of a batch on. Our
    sampler gives them exactly; the trainer computes them anew before the first update."""
    importance_cap: float | None = Field(default=None, gt=0)
    """C of truncated importance sampling between trainer and sampler (TRL: 2 to 3). For a sampler that
    truncates (top_p), or is another program."""
    dynamic: bool = False
    """Draw until prompts_per_step groups have rewards that differ (DAPO's dynamic sampling)."""
    dynamic_tries: int = Field(default=10, gt=0)
    """The most draws of a batch, which is then smaller. DAPO's script: 10."""
    mask_truncated: bool = False
    """Answers that did not end by themselves are judged and not learnt from (DAPO's overlong filtering)."""

    ink: InkConfig = InkConfig()
    agent: AgentConfig = AgentConfig()
    max_prompt: int = Field(default=2048, gt=0)
    """Longer prompts are left out, and counted."""
    row_length: int = Field(default=6144, gt=1)
    """Tokens of a packed row; several answers, or texts, stand in one, blind to one another."""

    learning_rate: float = Field(default=1e-6, gt=0)
    schedule: Curve = "constant"
    warmup: float = Field(default=0.0, ge=0)
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    spike_factor: float = Field(default=1e9, gt=1)
    """A policy's loss lies about 0, so a multiple of its median says nothing; its gradient's does."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.updates > 1 and self.old == "sampler" and self.sampling.truncates:
            raise ValueError(
                "a sampler that truncates (top_k, top_p, min_p) gives log-probabilities of another "
                'distribution than the one that learns: old = "trainer" goes with it'
            )
        if self.updates > self.prompts_per_step:
            raise ValueError("more updates than groups: at most prompts_per_step")
        if not self.reward:
            raise ValueError("no reward is named")
        return self


class InkGrpo:
    """The objective: methods/ink_grpo.py on a model's hidden states."""

    def __init__(self, policy: "Policy"):
        self.policy = policy

    def __call__(self, model: "CausalLM", rows: "Rows") -> "Loss":
        from endonym.methods.ink_grpo import ink_grpo

        hidden = model(rows.tokens, positions=rows.positions, segments=rows.segments)
        return ink_grpo(hidden, model.head, rows, self.policy, model.cap)


def rl(
    config: RlConfig,
    context: Context,
    out: Path,
    *,
    model: Artifact,
    prompts: dict[str, Artifact],
    knowledge: dict[str, Artifact],
    library: Artifact | None,
    embedder: Artifact | None = None,
) -> Outcome:
    """A model folder out of a model, prompts and rewards; `knowledge`: text learnt beside them.

    With a `library` of sections the model may search and read it (search_law, read_law) before it
    answers, and what the tools say is read and not learnt; an `embedder` lets it search by meaning
    too. Without a library it answers in one turn.

    rollouts/NNNNNN.parquet holds every batch as it was drawn and judged (rollouts/record.py), rollouts.jsonl
    the answers to the first prompt of a few batches, from the run's beginning to its end, for readers.

    With context.server every batch is answered by a server of the weights as they stand
    (rollouts/answering.py), and the figure answered_by says so. DataError, before anything is drawn, where
    it cannot tell the log-probabilities of what it draws from.

    Figures besides the loop's: rewards: of each part and the whole the mean over the first and the last
    tenth of the steps; prompts, too_long (left out), discarded, failed, truncated (shares of
    what was drawn), text_steps, and judged_by: what the rewards say of themselves (a rubric of its judge).
    """
    if embedder is not None and library is None:
        raise RecipeError(
            "an embedder without anything to search", where="embedder", do="plug in a library too"
        )
    from endonym.train import launch

    inputs = {
        "model": model, "prompts": prompts, "knowledge": knowledge, "library": library,
        "embedder": embedder,
    }  # fmt: skip
    if launch.wanted(context):
        return launch.spread(STAGE, config, context, out, inputs)

    from endonym.engine.answered import answered_by
    from endonym.model import hf
    from endonym.model.device import settled
    from endonym.rewards.mix import mix
    from endonym.rollouts.answering import server_of
    from endonym.rollouts.draw import Draw
    from endonym.rollouts.groups import Groups
    from endonym.rollouts.order import Order
    from endonym.stages.training import exporter, finish
    from endonym.tokenizer.folder import Tokenizer
    from endonym.train.loop import train
    from endonym.train.parallel import ranks

    context = settled(context)
    words = Tokenizer.load(model.path)
    net = hf.load(model.path)
    plan, environment = plan_of(config, library is not None), None
    if library is not None:
        environment = opened(library, embedder, config.agent, context)
    asked, too_long = _short(_prompts(prompts), words, environment, config)
    order = Order(asked, config.mixture, config.seed)
    judge = mix(config.reward, config.own)
    text = _text(config, knowledge, model, context)
    # The caches of a group take less memory than a row does in training.
    groups_at_once = context.rows_per_device or config.prompts_per_step
    draw = Draw(
        order, words, judge, plan,
        environment=environment,
        reference=hf.load(model.path).eval() if config.beta else None,
        at_once=groups_at_once * config.group,
        server=server_of(context, STAGE.name, model.address, config, exporter(words)),
    )  # fmt: skip
    tools = [None if one is None else one.address for one in (library, embedder)]
    started = [model.address, config.reward, *tools]
    started.append({name: sha256_file(Path(file)) for name, file in config.own.items()})
    origin = json.dumps(started, sort_keys=True)
    folder = context.scratch / "rollouts"
    loader = Groups(draw, text, folder, origin, ranks(context).part)
    batches = max(1, round(config.epochs * len(order) / config.prompts_per_step))
    steps = config.steps or batches * config.updates
    figures = train(
        net,
        InkGrpo(plan.policy),
        loader,
        config.model_copy(update={"steps": steps}),
        context,
        title="rl",
        export=exporter(words),
    )
    taken = figures["steps"] + figures["passed_over"]
    with (context.scratch / "metrics.jsonl").open() as lines:
        logged = [line for line in map(json.loads, lines) if "tokens" in line]
    figures |= loader.summary(logged)
    said = judge.described()
    for name, share in figures.pop("failed_by_part").items():
        said[name]["failed"] = share
    figures |= {"prompts": len(order), "too_long": too_long, "judged_by": said}
    figures |= answered_by(context.scratch)
    shutil.copytree(folder, out / "rollouts", ignore=shutil.ignore_patterns("*.partial"))
    loader.write_log(out / "rollouts.jsonl", taken)
    data = {**prompts, **{f"knowledge.{label}": one for label, one in knowledge.items()}}
    if library is not None:
        data["library"] = library
    if embedder is not None:
        data["embedder"] = embedder
    return finish(net, words, out, context, figures, data, model)


def plan_of(config: RlConfig, agentic: bool) -> "Plan":
    """What the loader needs of the settings."""
    from endonym.engine.sampler import Sampling
    from endonym.methods.grpo import Policy
    from endonym.rollouts.draw import Plan

    policy = Policy(
        low=config.clip_low,
        high=config.clip_high,
        dual=config.dual_clip,
        beta=config.beta,
        cap=config.importance_cap,
        temperature=config.sampling.temperature,
    )
    return Plan(
        prompts=config.prompts_per_step,
        group=config.group,
        updates=config.updates,
        sampling=Sampling(**config.sampling.model_dump(), seed=config.seed),
        policy=policy,
        aggregate=config.aggregate,
        scale=config.scale,
        old=config.old,
        dynamic=config.dynamic,
        dynamic_tries=config.dynamic_tries,
        mask_truncated=config.mask_truncated,
        longest=config.agent.max_tokens if agentic else config.sampling.max_tokens,
        max_turns=config.agent.max_turns,
        row_length=config.row_length,
        seed=config.seed,
    )


def _prompts(artifacts: dict[str, Artifact]) -> "dict[str, list[Prompt]]":
    from endonym.data.document import Prompt, read_table
    from endonym.tasks.base import as_prompt, read_items

    return {
        label: [as_prompt(item) for item in read_items(one.file("items.parquet"))]
        if one.kind == "items"
        else list(read_table(one.file("prompts.parquet"), Prompt))
        for label, one in artifacts.items()
    }


def _short(
    prompts: "dict[str, list[Prompt]]",
    words: "Tokenizer",
    environment: "Environment | None",
    config: RlConfig,
) -> "tuple[dict[str, list[Prompt]], int]":
    """The prompts of at most max_prompt tokens, and how many were longer."""
    found, count = {}, 0
    for label, every in prompts.items():
        found[label] = []
        for one in every:
            tools = one.tools if environment is None else environment.tools
            ids = words.encode_prompt(one.messages, tools or None)
            if len(ids) <= config.max_prompt:
                found[label].append(one)
        count += len(every) - len(found[label])
        if not found[label]:
            raise DataError(
                "no prompt is short enough",
                where=f"prompts.{label}",
                wanted=f"at most max_prompt = {config.max_prompt} tokens",
                got=f"{len(every)} prompts",
            )
    return found, count


def _text(
    config: RlConfig, artifacts: dict[str, Artifact], model: Artifact, context: Context
) -> "Text | None":
    """The knowledge as token stores, in scratch/knowledge."""
    from endonym.data.document import Conversation, Document
    from endonym.rollouts.text import Text
    from endonym.stages.training import tokenised

    if not artifacts:
        return None
    settings, stores = config.ink, {}
    here = context.at(context.scratch / "knowledge")
    for kind, table in ((Conversation, "conversations"), (Document, "documents")):
        some = {label: one for label, one in artifacts.items() if one.kind == table}
        stores |= tokenised(some, f"{table}.parquet", kind, model.path, here)
    unknown = settings.mixture.keys() - artifacts.keys()
    if unknown:
        raise RecipeError(
            "the mixture names knowledge that is not plugged in",
            where="ink.mixture",
            wanted=", ".join(artifacts),
            got=", ".join(sorted(unknown)),
        )
    labels = [label for label in artifacts if not settings.mixture or settings.mixture.get(label)]
    return Text(
        [stores[label] for label in labels],
        [settings.mixture[label] for label in labels] if settings.mixture else None,
        lmbda=settings.lmbda,
        rho=settings.rho,
        rows=settings.rows,
        row_length=settings.row_length,
        seed=config.seed,
    )


STAGE = Stage(
    name="rl",
    version=1,
    kind="model",
    config=RlConfig,
    slots={
        "model": Slot("model"),
        "prompts": Slot("items or prompts", many=True),
        "knowledge": Slot("conversations or documents", many=True, optional=True),
        "library": Slot("sections", optional=True),
        "embedder": Slot("model", optional=True),
    },
    function=rl,
)
