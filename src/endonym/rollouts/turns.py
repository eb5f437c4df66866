"""Which prompts a step of distillation takes, and who answers each.

    step -> row numbers -> (source, row), and by lmbda who answers

All of it is a function of (seed, row number), the same on every rank and in a run that is resumed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from endonym.core.errors import DataError
from endonym.data.mix import Mixture
from endonym.engine.sampler import uniforms
from endonym.rollouts.asked import Asked
from endonym.train.seed import seed_for

STUDENT, TEACHER, DATA = "student", "teacher", "data"

COUNTS = ("rows", "on_policy", "truncated", "prompt_tokens", "answer_tokens")


@dataclass(frozen=True)
class Turn:
    """One row of a step: its number in the run, where it stands in the data, and who answers."""

    slot: int
    source: int
    row: int
    by: str


class Turns:
    """The turns of a run.

    sources:        prompts by label; weights: their shares of a step's turns, None: every row of all once
                    an epoch
    rows_per_step:  turns of a step
    row_length:     tokens of a prompt with its answer, at most
    rooms:          for each source the most tokens that an answer to each of its prompts may have where
                    the teacher reads less than a row; None: what the prompt leaves of the row
    lmbda:          share of turns that the student answers; one that nobody else answers is always its
    by:             who answers the others: DATA or TEACHER

    A prompt that leaves no room for an answer is left out, and so is one whose answer in the data has no
    room, wherever that answer is asked for: of an answer that is cut off the end would never be learnt. The
    report counts them. DataError where nothing is left of a source that has a share.
    """

    def __init__(
        self,
        sources: Sequence[Asked],
        weights: Sequence[float] | None,
        *,
        rows_per_step: int,
        row_length: int,
        rooms: Sequence[np.ndarray] | None,
        lmbda: float,
        by: str,
        seed: int,
    ):
        self.sources, self.rows_per_step = list(sources), rows_per_step
        self.lmbda, self.by, self.seed = lmbda, by, seed
        self.rooms = [row_length - one.prompt_lengths for one in self.sources]
        if rooms is not None:
            pairs = zip(self.rooms, rooms, strict=True)
            self.rooms = [np.minimum(a, b).astype(np.int64) for a, b in pairs]
        reads_given = by == DATA and lmbda < 1
        self.fitting = [
            np.flatnonzero((room > 0) & (one.answer_lengths * reads_given <= room))
            for one, room in zip(self.sources, self.rooms)
        ]
        self.num_rows = [len(each) for each in self.fitting]
        self._check(weights, row_length)
        self._joint = np.cumsum([0, *self.num_rows])
        self._is_joint = weights is None and len(self.sources) > 1
        sizes = [int(self._joint[-1])] if self._is_joint else self.num_rows
        shares = None if weights is None else list(weights)
        self._mixture = Mixture.of(sizes, shares, seed_for(seed, "order"))
        wanted = np.asarray(self.num_rows if weights is None else weights, np.float64)
        self._asked = (wanted / wanted.sum()).tolist()

    def _check(self, weights: Sequence[float] | None, row_length: int) -> None:
        idle = [
            one
            for one, count, weight in zip(
                self.sources, self.num_rows, weights or [1] * len(self.sources), strict=True
            )
            if weight and not count
        ]
        if idle if weights else not sum(self.num_rows):
            raise DataError(
                "there is nothing to ask",
                where=", ".join(one.name for one in idle),
                wanted=f"a prompt that fits {row_length} tokens with its answer",
                got="; ".join(
                    f"{one.name}: {len(one)} prompts"
                    + (f", the shortest of {one.prompt_lengths.min()} tokens" if len(one) else "")
                    for one in idle
                ),
                do="choose longer rows, or give other data",
            )

    @property
    def per_epoch(self) -> int:
        """Steps in which every row has been taken at least once, without weights."""
        return -(-int(self._joint[-1]) // self.rows_per_step)

    @property
    def too_long(self) -> int:
        """Prompts that are left out."""
        return sum(map(len, self.sources)) - sum(self.num_rows)

    def longest(self, max_tokens: int) -> int:
        """Tokens of the longest prompt with its answer that there may be, where a drawn one has at most
        max_tokens."""
        found = 1
        for one, kept, rooms in zip(self.sources, self.fitting, self.rooms):
            prompts, answers = one.prompt_lengths[kept], one.answer_lengths[kept]
            drawn = max_tokens if self.lmbda > 0 or self.by == TEACHER else 0
            most = np.where(answers > 0, np.maximum(answers, drawn), max_tokens)
            found = max(found, int((prompts + np.minimum(most, rooms[kept])).max(initial=1)))
        return found

    def room(self, turn: Turn) -> int:
        """The most tokens of a turn's answer."""
        return int(self.rooms[turn.source][turn.row])

    def at(self, step: int) -> list[Turn]:
        """The turns of a step.

        A turn's coin is a function of (seed, row number). (Typhoon-S's release tosses one for each
        micro-batch of one row, the same thing, but with each process's own generator; GKD, arXiv:2306.13649,
        algorithm 1, one for each step.)
        """
        slots = np.arange(step * self.rows_per_step, (step + 1) * self.rows_per_step)
        source, row = self._mixture.at(slots)
        if self._is_joint:
            source = np.searchsorted(self._joint, row, side="right") - 1
            row = row - self._joint[source]
        keys = torch.from_numpy(slots)
        coin = uniforms(seed_for(self.seed, "lmbda"), keys, torch.zeros_like(keys)).tolist()
        found = []
        for slot, number, place, side in zip(slots.tolist(), source.tolist(), row.tolist(), coin):
            index = int(self.fitting[number][place])
            alone = self.by == DATA and not len(self.sources[number].answer(index))
            by = STUDENT if side < self.lmbda or alone else self.by
            found.append(Turn(slot, number, index, by))
        return found

    def names(self, step: int) -> list[str]:
        """For each turn of a step its source, its row in it, and who answers."""
        return [
            f"{self.sources[turn.source].name}: {turn.row} ({turn.by})" for turn in self.at(step)
        ]

    def state(self, step: int) -> dict[str, float]:
        """Before step `step`: "epoch/NAME" of each source; and the share of the step that is on-policy."""
        epochs = self._mixture.epochs(step * self.rows_per_step)
        epochs = epochs * len(self.sources) if self._is_joint else epochs
        turns = self.at(step)
        share = sum(turn.by == STUDENT for turn in turns) / len(turns)
        return {
            **{f"epoch/{one.name}": epoch for one, epoch in zip(self.sources, epochs)},
            "on_policy": share,
        }

    # --- what a run says of its data --------------------------------------------------------------

    def measured(self, lengths: Iterable[tuple[Turn, int, str]]) -> dict[str, Any]:
        """What was taken, by source, language and origin: rows, how many of them the student answered
        (on_policy), answers that ended without their stop token (truncated), and tokens of prompts and of
        answers. lengths: of every turn (turn, tokens of its answer, how that finished)."""
        tables: dict[str, dict[str, dict[str, int]]] = {
            "sources": {}, "languages": {}, "origins": {},
        }  # fmt: skip
        whole = dict.fromkeys(COUNTS, 0)
        for turn, answer, finish in lengths:
            one = self.sources[turn.source]
            prompt = len(one.prompt(turn.row))
            names = (
                one.name,
                *(each.names[each.codes[turn.row]] for each in (one.languages, one.sources)),
            )
            counts = (1, turn.by == STUDENT, finish != "stop", prompt, answer)
            rows = [
                table.setdefault(name, dict.fromkeys(COUNTS, 0))
                for table, name in zip(tables.values(), names)
            ]
            for row in [whole, *rows]:
                for key, count in zip(COUNTS, counts):
                    row[key] += int(count)
        return whole | tables

    def report(self, measured: dict[str, Any]) -> list[dict[str, Any]]:
        """Of each source: the share of rows that it was to get and got, its epochs, and its prompts that
        are left out (dropped)."""
        found, total = measured["sources"], max(measured["rows"], 1)
        out = []
        for one, asked, size in zip(self.sources, self._asked, self.num_rows):
            rows = found.get(one.name, {}).get("rows", 0)
            out.append(
                {
                    "source": one.name,
                    "asked": asked,
                    "rows": rows,
                    "share": rows / total,
                    "epochs": rows / max(size, 1),
                    "dropped": len(one) - size,
                }
            )
        return out
