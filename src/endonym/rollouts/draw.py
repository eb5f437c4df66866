"""One batch of rollouts: groups of answers of the model as it stands, judged, filtered, with advantages.

    slots of prompts -> episodes -> rewards -> which groups are kept -> advantages (-> log-probabilities)

Each process answers its part of the prompts and judges its answers; then all of them know the batch.
The answers are our engine's, or a server's that is started for the batch (answering.py).
"""

import hashlib
import math
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from endonym.core.errors import DataError
from endonym.data.document import Prompt
from endonym.engine.backends import Backend
from endonym.engine.sampler import Sampling
from endonym.methods.batch import Rows
from endonym.methods.grpo import EPS, Policy, Scale, advantages
from endonym.methods.logprobs import selected_logprobs
from endonym.rewards.mix import Mix
from endonym.rollouts.agent import episodes
from endonym.rollouts.answering import Server, own
from endonym.rollouts.environment import Environment
from endonym.rollouts.episode import Episode, single_turn
from endonym.rollouts.order import Order
from endonym.rollouts.pieces import PackedPieces, piece
from endonym.rollouts.record import Batch, Rollout, groups
from endonym.tokenizer.folder import Tokenizer
from endonym.train.parallel import Ranks
from endonym.train.trainee import Trainee

FORWARD_TOKENS = 2048
"""Of a row whose log-probabilities are computed, at least (train/foresee.py, CPU_TOKENS)."""


@dataclass(frozen=True)
class Plan:
    """How a batch is drawn and learnt from; RlConfig says what each is (stages/rl.py).

    longest: of an answer, tool text included; the constant of aggregate = "constant"
    """

    prompts: int
    group: int
    updates: int
    sampling: Sampling
    policy: Policy
    aggregate: Literal["tokens", "sequences", "constant"]
    scale: Scale
    old: Literal["sampler", "trainer"]
    dynamic: bool
    dynamic_tries: int
    mask_truncated: bool
    longest: int
    max_turns: int
    row_length: int
    seed: int

    @property
    def columns(self) -> list[str]:
        """Log-probabilities that rollouts need besides the sampler's."""
        wanted = ["old"] if self.updates > 1 and self.old == "trainer" else []
        return wanted + (["reference"] if self.policy.beta else [])


class Draw:
    """Batches by number: draw(trainee, number, cursor), which all processes call together.

    environment: of episodes with tools; None: one answer to each prompt
    reference:   the start model, where the plan needs its log-probabilities
    at_once:     prompts that our engine answers at a time
    server:      what answers in its place
    """

    def __init__(
        self,
        order: Order,
        tokenizer: Tokenizer,
        rewards: Mix,
        plan: Plan,
        *,
        environment: Environment | None = None,
        reference: nn.Module | None = None,
        at_once: int = 32,
        server: Server | None = None,
    ):
        self.order, self.tokenizer, self.rewards, self.plan = order, tokenizer, rewards, plan
        self.environment, self.reference, self.at_once = environment, reference, at_once
        self.server = server
        # Rewards get the same columns in every batch, whichever prompts have them.
        self.columns = dict.fromkeys(name for each in order.all() for name in columns_of(*each))

    def __call__(self, trainee: Trainee, number: int, cursor: int) -> Batch:
        """The batch whose first prompt is that of slot `cursor`.

        With plan.dynamic, groups whose rewards are all equal are put aside and others drawn in their
        place, at most dynamic_tries times; the batch may then be smaller than was asked.
        """
        stamp = f"batch-{number}"
        with ExitStack() as stack:  # one server for all draws of a batch: its weights are the same
            served = self.server and stack.enter_context(self.server.serving(trainee, stamp))
            found, cursor, tries = self._found(trainee, stamp, cursor, served)
        batch = Batch(number, cursor, tries, sorted(found, key=lambda o: (o.slot, o.sample)))
        weigh(batch.kept, self.plan)
        self._add_logprobs(trainee, [each for group in batch.kept for each in group])
        return batch

    def _found(
        self, trainee: Trainee, stamp: str, cursor: int, served: Backend | None
    ) -> tuple[list[Rollout], int, int]:
        """The judged answers of all processes, the next cursor, and how often was drawn."""
        plan, found, tries = self.plan, [], 0
        while True:
            missing = plan.prompts - len({each.slot for each in found if each.kept})
            slots = list(range(cursor, cursor + missing))
            cursor, tries = cursor + missing, tries + 1
            r, n = trainee.ranks.part
            mine = self._rollouts(trainee, stamp, slots[r::n], served)
            drawn = together(trainee.ranks, mine)
            for group in groups([each for part in drawn for each in part]):
                keeps = not plan.dynamic or is_mixed(group)
                for each in group:
                    each.kept = keeps
                found += group
            enough = len({each.slot for each in found if each.kept}) == plan.prompts
            if not plan.dynamic or enough or tries == plan.dynamic_tries:
                return found, cursor, tries

    def _rollouts(
        self, trainee: Trainee, stamp: str, slots: list[int], served: Backend | None
    ) -> list[Rollout]:
        """Answers of this process to the prompts of these slots, judged."""
        places = [(slot, sample) for slot in slots for sample in range(self.plan.group)]
        asked = [self.order.at(slot) for slot, _ in places]
        prompts = [prompt for _, prompt in asked]
        keys = [sampling_key(self.plan.seed, *place) for place in places]
        with nullcontext(served) if served else own(trainee, stamp, batch=self.at_once) as backend:
            drawn = self._episodes(backend, prompts, keys)
        made = [
            Rollout(
                slot, sample, label, prompt.id,
                one.prompt, one.tokens, one.mask, one.logprobs,
                one.finish, one.turns, one.messages,
            )
            for (slot, sample), (label, prompt), one in zip(places, asked, drawn, strict=True)
        ]  # fmt: skip
        self._judge(made, asked, drawn)
        return made

    def _episodes(self, backend: Backend, prompts: list[Prompt], keys: list[int]) -> list[Episode]:
        sampling = self.plan.sampling
        if self.environment is None:
            return single_turn(backend, self.tokenizer, prompts, sampling, keys=keys)
        return episodes(
            backend, self.tokenizer, self.environment, prompts, sampling,
            max_turns=self.plan.max_turns, max_tokens=self.plan.longest, keys=keys,
        )  # fmt: skip

    def _judge(
        self, made: list[Rollout], asked: list[tuple[str, Prompt]], drawn: list[Episode]
    ) -> None:
        """Fills in parts and reward. An environment's own reward stands in the place of the sum."""
        if not made:
            return
        columns = [columns_of(label, prompt) for label, prompt in asked]
        if self.environment is not None:  # what could be called is the environment's to say
            columns = [{**each, "tools": self.environment.tools} for each in columns]
        names = self.columns if self.environment is None else {**self.columns, "tools": None}
        found = self.rewards.parts(
            [prompt.messages for _, prompt in asked],
            [one.messages for one in drawn],
            completion_ids=[one.tokens for one in drawn],
            **{name: [each.get(name) for each in columns] for name in names},
        )
        totals = found.pop("total")
        for n, (rollout, one) in enumerate(zip(made, drawn, strict=True)):
            rollout.parts = {name: values[n] for name, values in found.items()}
            total = totals[n]
            if one.reward is not None:
                total = rollout.parts["environment"] = one.reward
            if total is None:
                raise DataError(
                    "no reward applies to a prompt",
                    where=f"{rollout.label}: {rollout.id}",
                    wanted=f"columns that one of {', '.join(found)} reads",
                    got=", ".join(name for name, value in columns[n].items() if value) or "none",
                    do="choose rewards that fit the prompts, or leave these prompts out",
                )
            rollout.reward = float(total)

    def _add_logprobs(self, trainee: Trainee, rollouts: list[Rollout]) -> None:
        """What the plan needs besides the sampler's log-probabilities, by the trainer's forward pass."""
        for column in self.plan.columns:
            packed = PackedPieces(
                [piece(each, 1.0, 1.0) for each in rollouts],
                max(self.plan.row_length, FORWARD_TOKENS),
                trainee.ranks.part[1],
            )
            inside = trainee.inside
            if column == "reference":
                self.reference.to(trainee.device)
                inside = lambda f: _frozen(f, self.reference, trainee)  # noqa: E731
            mine = [
                inside(lambda model, rows=rows: self._logprobs(model, rows.to(trainee.device)))
                for rows in packed.part(trainee.ranks.part).split(1)
            ]
            mine = torch.cat(
                [nn.functional.pad(each, (0, packed.width - each.shape[1])) for each in mine]
            )
            table = torch.cat(together(trainee.ranks, mine.cpu()))
            for each, values in zip(rollouts, packed.unpacked(table), strict=True):
                setattr(each, column, values[len(each.prompt) - 1 :].astype(np.float32))

    def _logprobs(self, model: nn.Module, rows: Rows) -> Tensor:
        hidden = model(rows.tokens, positions=rows.positions, segments=rows.segments)
        temperature = self.plan.policy.temperature
        return selected_logprobs(hidden, model.head, rows.labels, model.cap, temperature)


def _frozen(function: Callable[[nn.Module], Any], model: nn.Module, trainee: Trainee) -> Any:
    with torch.no_grad(), trainee.cast():
        return function(model)


def weigh(kept: list[list[Rollout]], plan: Plan) -> None:
    """Fills in advantages and which rollouts have a weight, of the groups that are learnt from."""
    if not kept:
        return
    rewards = torch.tensor([[each.reward for each in g] for g in kept], dtype=torch.float64)
    failed = torch.tensor([[each.failed for each in g] for g in kept])
    found, counted = advantages(rewards, failed, plan.scale)
    for row, group in enumerate(kept):
        for column, each in enumerate(group):
            each.learnt = bool(counted[row, column])
            each.learnt &= not (plan.mask_truncated and each.is_truncated)
            each.advantage = float(found[row, column]) if each.learnt else 0.0


def is_mixed(group: list[Rollout]) -> bool:
    """Whether the judged answers of a group differ in reward."""
    judged = [each.reward for each in group if not each.failed]
    return len(judged) >= 2 and max(judged) - min(judged) > EPS


def columns_of(label: str, prompt: Prompt) -> dict[str, Any]:
    """What rewards may ask for about a prompt."""
    told = {name: getattr(prompt, name) for name in ("id", "task", "language", "source")}
    tools = {"tools": prompt.tools} if prompt.tools else {}
    return {"label": label, **told, **tools, **prompt.columns}


def sampling_key(seed: int, slot: int, sample: int) -> int:
    """63 bits that an answer's random numbers depend on: its place in the run and nothing else."""
    told = f"rollout {seed} {slot} {sample}".encode()
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "little") >> 1


def together(ranks: Ranks, mine: Any) -> list[Any]:
    """What each part of the processes has, by part; processes that share rows have the same."""
    found = dict(ranks.gather((ranks.part[0], mine)))
    return [found[number] for number in range(ranks.part[1])]


def figures(batch: Batch, plan: Plan) -> dict[str, float]:
    """What a batch was like, by TRL's names where it has one. Rewards: means over judged answers of all
    groups that were drawn, those put aside included; a part over the answers that it applies to.

    reward, reward_std (mean over groups), rewards/<part>/mean and /std (over answers),
    frac_reward_zero_std; failed (share of answers that could not be judged), failed/<part>;
    completions/mean_length (tokens that were drawn),
    completions/clipped_ratio (share that did not stop by itself), turns; entropy (the mean of minus the
    log-probability of what was drawn: an estimate without bias of the sampler's own); discarded
    (share of groups put aside), tries.
    """
    every = batch.rollouts
    judged = [each.reward for each in every if not each.failed]
    by_group = [[each.reward for each in g if not each.failed] for g in groups(every)]
    by_group = [each for each in by_group if len(each) >= 2]
    drawn = [int(np.sum(each.mask)) for each in every]
    logprobs = sum(float(np.sum(each.logprobs, dtype=np.float64)) for each in every)
    found = {
        "reward": _mean(judged),
        "reward_std": _mean([float(np.std(each, ddof=1)) for each in by_group]),
        "frac_reward_zero_std": _mean([max(each) - min(each) <= EPS for each in by_group]),
        "failed": _mean([each.failed for each in every]),
        "completions/mean_length": _mean(drawn),
        "completions/clipped_ratio": _mean([each.is_truncated for each in every]),
        "turns": _mean([each.turns for each in every]),
        "entropy": -logprobs / max(sum(drawn), 1),
        "discarded": _mean([not group[0].kept for group in groups(every)]),
        "tries": float(batch.tries),
    }
    for name in dict.fromkeys(name for each in every for name in each.parts):
        values = [v for each in every if (v := each.parts.get(name)) is not None]
        known = [value for value in values if not math.isnan(value)]
        found[f"rewards/{name}/mean"] = _mean(known)
        if len(known) > 1:
            found[f"rewards/{name}/std"] = float(np.std(known, ddof=1))
        if len(known) < len(values):
            found[f"failed/{name}"] = 1 - len(known) / len(values)
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _mean(values: list) -> float:
    return float(np.mean(values)) if values else math.nan
