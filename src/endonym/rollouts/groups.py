"""Training rows out of what the model itself answers: a loader whose rows depend on the weights.

    step s = batch s // updates, of its kept groups the (s % updates)-th share

A batch is drawn by the weights before its first step, written down (record.py), and only then learnt
from; a run that goes on after a kill reads what is written and draws the rest, with the same weights and
the same random numbers. Where the prompts stand is in the file of the batch before.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from endonym.methods.batch import Rows
from endonym.rollouts import record
from endonym.rollouts.draw import Draw, figures, together
from endonym.rollouts.pieces import PackedPieces, Piece, piece
from endonym.rollouts.record import Batch, Rollout
from endonym.rollouts.text import Text
from endonym.train.trainee import Trainee

ALWAYS = ("advantage", "share", "sampled")
"""What rows have also where there is nothing to learn."""


class Groups:
    """The loader of a reinforcement run (train/loop.py).

    folder: of the batches' files
    origin: names what else the rows depend on: the start model, the rewards
    part:   (r, n) of this process, for sample()
    """

    def __init__(
        self,
        draw: Draw,
        text: Text | None,
        folder: Path,
        origin: str,
        part: tuple[int, int] = (0, 1),
    ):
        self.draw, self.plan, self.text = draw, draw.plan, text
        self.folder, self._part = folder, part
        settings = asdict(self.plan) | {"sampling": self.plan.sampling.model_dump()}
        parts = [settings, draw.order.identity, origin, draw.tokenizer.identity]
        parts.append(None if text is None else text.identity)
        written = json.dumps(parts, sort_keys=True)
        self.identity = hashlib.sha256(written.encode()).hexdigest()
        self._trainee: Trainee | None = None
        self._batch: Batch | None = None

    def sample(self) -> Rows:
        """Rows of the largest shape: every answer as long as it may be, in a row of its own."""
        plan = self.plan
        count = -(-plan.prompts * plan.group // plan.updates)
        ids = list(range(plan.row_length))
        full = Rollout(0, 0, "", "", ids[:1], ids, [True] * len(ids), [0.0] * len(ids), "", 1, [])
        pieces = [piece(full, 1.0, 1.0)] * count
        if self.text is not None:
            pieces += [self.text.longest()] * self.text.loader.rows_per_step
        return self._rows(pieces, self._part)

    def ready(self, trainee: Trainee) -> None:
        self._trainee = trainee

    def state(self, step: int) -> dict[str, float]:
        """Figures of the batch that step `step` learns from, and whether it has text beside it."""
        batch = self.batch(step // self.plan.updates)
        found = figures(batch, self.plan) | {"epoch": batch.cursor / len(self.draw.order)}
        return found | ({} if self.text is None else {"text": float(self.text.injects(step))})

    def names(self, step: int) -> list[str]:
        """The prompts that the step learns from."""
        return [f"{one.label}: {one.id}" for one, *_ in self._groups(step)]

    def rows(self, step: int, part: tuple[int, int] = (0, 1)) -> Rows:
        """Part r of n of a step's rows; empty ones where there is nothing to learn."""
        return self._rows(self.pieces(step), part)

    def _rows(self, pieces: list[Piece], part: tuple[int, int]) -> Rows:
        packed = PackedPieces(pieces, self.plan.row_length, part[1], always=ALWAYS)
        return packed.part(part)

    def pieces(self, step: int) -> list[Piece]:
        """Answers and text of a step, weighed so that the sum of losses over the sum of shares is the
        step's loss.

        Without beta an answer with no advantage has no gradient: it is counted and does not go through
        the model. The weights of the others make up for its missing share.
        """
        plan = self.plan
        learnt = [each for group in self._groups(step) for each in group if each.learnt]
        all_shares = sum(self._weight_and_share(each)[1] * sum(each.mask) for each in learnt)
        if not plan.policy.beta:
            learnt = [each for each in learnt if each.advantage]
        share = sum(self._weight_and_share(each)[1] * sum(each.mask) for each in learnt)
        columns = {"reference": "reference"} if plan.policy.beta else {}
        if step % plan.updates:  # in the first update the policy is still the one that was sampled
            columns["old"] = "old" if plan.old == "trainer" else "logprobs"
        found = []
        for each in learnt:
            weight, its_share = self._weight_and_share(each)
            found.append(piece(each, weight * (share / all_shares), its_share, **columns))
        return found + ([] if self.text is None else self.text.pieces(step, share))

    def batch(self, number: int) -> Batch:
        """The batch of this number: the one at hand, read, or drawn now. All processes ask together."""
        if self._batch is None or self._batch.number != number:
            trainee = self._trainee
            path = record.path_of(self.folder, number)
            if not together(trainee.ranks, path.is_file())[0]:
                drawn = self.draw(trainee, number, self._cursor(number))
                if trainee.ranks.main:
                    record.write(self.folder, drawn, self.identity)
                trainee.ranks.barrier()
            self._batch = record.read(self.folder, number, self.identity)
        return self._batch

    def summary(self, steps: list[dict[str, Any]]) -> dict[str, Any]:
        """What a run's steps were like, for the record, out of their lines in metrics.jsonl.

        rewards: by part and "reward", the means over the first and the last tenth of the steps;
        discarded, failed, truncated: shares of what was drawn; failed_by_part: of what a reward
        could not judge; text_steps: steps with text.
        """
        tenth = max(1, len(steps) // 10)
        names = list(dict.fromkeys(name for one in steps for name in one))
        rewards = {
            name.removeprefix("rewards/").removesuffix("/mean"): {
                "first": _mean(steps[:tenth], name),
                "last": _mean(steps[-tenth:], name),
            }
            for name in names
            if name == "reward" or (name.startswith("rewards/") and name.endswith("/mean"))
        }
        failed = {
            name.removeprefix("failed/"): sum(one.get(name, 0.0) for one in steps) / len(steps)
            for name in names
            if name.startswith("failed/")
        }
        return {
            "rewards": rewards,
            "discarded": _mean(steps, "discarded"),
            "failed": _mean(steps, "failed"),
            "failed_by_part": failed,
            "truncated": _mean(steps, "completions/clipped_ratio"),
            "text_steps": int(sum(one.get("text", 0) for one in steps)),
        }

    def write_log(self, path: Path, steps: int, batches: int = 8, answers: int = 4) -> None:
        """JSON lines for readers: of a few batches from the first to the last the first prompt with its
        best and worst answers."""
        last = -(-steps // self.plan.updates) - 1
        chosen = sorted({round(n * last / max(batches - 1, 1)) for n in range(batches)})
        with path.open("w", encoding="utf-8") as out:
            for number in chosen:
                group = record.groups(record.read(self.folder, number, self.identity).rollouts)[0]
                group = sorted(group, key=lambda one: (one.failed, -one.reward))
                half = answers // 2
                shown = group if len(group) <= answers else group[:half] + group[-half:]
                prompt = self.draw.order.at(group[0].slot)[1]
                line = {
                    "batch": number,
                    "id": group[0].id,
                    "prompt": prompt.messages,
                    "answers": [
                        {
                            "messages": one.messages,
                            "reward": None if one.failed else one.reward,
                            "finish": one.finish,
                        }
                        for one in shown
                    ],
                }
                out.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _cursor(self, number: int) -> int:
        if not number:
            return 0
        before = self._batch
        if before is None or before.number != number - 1:
            before = record.read(self.folder, number - 1, self.identity)
        return before.cursor

    def _groups(self, step: int) -> list[list[Rollout]]:
        number, turn = divmod(step, self.plan.updates)
        kept = self.batch(number).kept
        begin, end = (n * len(kept) // self.plan.updates for n in (turn, turn + 1))
        return kept[begin:end]

    def _weight_and_share(self, one: Rollout) -> tuple[float, float]:
        """w and s of methods/grpo.py, of each drawn token."""
        drawn = max(sum(one.mask), 1)
        if self.plan.aggregate == "tokens":
            return 1.0, 1.0
        return (
            1 / drawn if self.plan.aggregate == "sequences" else 1 / self.plan.longest
        ), 1 / drawn


def _mean(steps: list[dict[str, Any]], name: str) -> float | None:
    """Of a figure over the steps that have it."""
    values = [one[name] for one in steps if name in one]
    return sum(values) / len(values) if values else None
