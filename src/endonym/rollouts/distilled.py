"""The live loader of distillation: each step's answers, drawn with the weights as they stand, or given.

    turns of a step (turns.py) -> answers, drawn or the data's (taken.py) -> packed rows

What was drawn is kept in a file before it is used: a run that was killed reads it there and draws nothing
twice.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from endonym.data.loader import stretch_of
from endonym.engine.sampler import Sampling
from endonym.methods.batch import Rows
from endonym.rollouts.answering import Server, answering
from endonym.rollouts.asked import Asked
from endonym.rollouts.pieces import PackedPieces, Place, answered, least_padding
from endonym.rollouts.taken import CUT, UNNAMED, Taken, path_of, read, write
from endonym.rollouts.turns import DATA, STUDENT, TEACHER, Turn, Turns
from endonym.train.trainee import Trainee


class Guide(Protocol):
    """What a teacher adds to rows before the student sees them (rollouts/guides.py)."""

    def ready(self, trainee: Trainee) -> None: ...

    def answers(
        self, turns: Sequence[Turn], sampling: Sampling, limits: list[int]
    ) -> list[tuple[list[int], str]]:
        """The teacher's own answers, as the student's ids, and how they finished."""

    def fill(self, rows: Rows, taken: Sequence[Taken], places: Sequence[Place]) -> Rows:
        """The rows with what the objective needs of the teacher; as they are where it runs there."""


class Distilled:
    """Rows of prompts with answers, lmbda of them answered by the student itself.

    sources:        prompts by label; weights: their shares of a step's rows, None: every row of all once
                    an epoch
    rows_per_step:  prompts of a step; they are packed into fewer rows
    row_length:     tokens of a prompt with its answer, at most
    rooms:          for each source the most tokens that an answer to each of its prompts may have where
                    the teacher reads less than a row; None: what the prompt leaves of the row
    lmbda:          share of rows that the student answers; a row that nobody else answers is always one
    by:             who answers the others: DATA or TEACHER
    sampling:       how answers are drawn; its max_tokens is the most that an answer has, its seed the run's
    known:          [V] bool, ids of the student's that the teacher has a name for; None: all
    aggregate:      "sequences": every answer weighs 1, its tokens alike; "tokens": every token weighs 1
    with_given:     rows have extra["given"]: the weights of answers that the data gave
    parts:          processes that rows are shared out among
    folder:         where drawn answers are kept
    server:         what draws the student's answers in our engine's place

    What is left out, and where nothing is left: Turns.
    """

    def __init__(
        self,
        sources: Sequence[Asked],
        guide: Guide,
        weights: Sequence[float] | None = None,
        *,
        rows_per_step: int,
        row_length: int,
        rooms: Sequence[np.ndarray] | None = None,
        lmbda: float,
        by: str,
        sampling: Sampling,
        stop_ids: set[int],
        known: np.ndarray | None = None,
        aggregate: str = "sequences",
        with_given: bool = False,
        parts: int = 1,
        folder: Path,
        identity: str = "",
        server: Server | None = None,
    ):
        self.turns = Turns(
            sources, weights, rows_per_step=rows_per_step, row_length=row_length, rooms=rooms,
            lmbda=lmbda, by=by, seed=sampling.seed,
        )  # fmt: skip
        self.sources, self.guide = self.turns.sources, guide
        self.rows_per_step, self.row_length = rows_per_step, row_length
        self.sampling, self.stop_ids = sampling, stop_ids
        self.known, self.aggregate, self.with_given = known, aggregate, with_given
        self.parts, self.folder = parts, folder
        stretch_of(rows_per_step, (0, parts))
        shares = None if weights is None else list(weights)
        told = [
            [one.identity for one in self.sources], shares, rows_per_step, row_length, lmbda, by,
            sampling.model_dump(mode="json"), aggregate, with_given, identity,
        ]  # fmt: skip
        self.identity = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        self.server = server
        self.trainee: Trainee | None = None

    @property
    def steps_per_epoch(self) -> int:
        return self.turns.per_epoch

    @property
    def too_long(self) -> int:
        return self.turns.too_long

    # --- what the loop asks for -----------------------------------------------------------------

    def sample(self) -> Rows:
        """Rows of the largest shape that this process may get."""
        longest = self.turns.longest(self.sampling.max_tokens)
        shape = (self.rows_per_step // self.parts, min(-(-longest // 8) * 8, self.row_length))
        tokens = torch.zeros(shape, dtype=torch.int64)
        positions = torch.arange(shape[1]).expand(shape)
        ones = torch.ones_like(tokens)
        return Rows(tokens, tokens.clone(), ones.float(), ones, positions.clone())

    def ready(self, trainee: Trainee) -> None:
        self.trainee = trainee
        self.guide.ready(trainee)

    def rows(self, step: int, part: tuple[int, int] = (0, 1)) -> Rows:
        """The packed rows of a step, or part (r, n) of them."""
        taken = [each for each in self.taken(step) if len(each.answer)]
        weights = [1 / len(each.answer) if self.aggregate == "sequences" else 1.0 for each in taken]
        pieces = [
            answered(each.prompt, each.answer, weight, **self._given(each, weight))
            for each, weight in zip(taken, weights)
        ]
        packed = PackedPieces(
            pieces, self.row_length, part[1], fit=least_padding,
            always=("given",) * self.with_given,
        )  # fmt: skip
        here = packed.inside(part)
        mine = [taken[number] for number, _ in here]
        places = [place.last(len(taken[number].answer)) for number, place in here]
        return self.guide.fill(packed.part(part), mine, places)

    def _given(self, one: Taken, weight: float) -> dict[str, float]:
        if not self.with_given:
            return {}
        return {"given": weight if one.turn.by == DATA else 0.0}

    def names(self, step: int) -> list[str]:
        return self.turns.names(step)

    def state(self, step: int) -> dict[str, float]:
        return self.turns.state(step)

    # --- a step's answers -----------------------------------------------------------------------

    def taken(self, step: int) -> list[Taken]:
        """The turns of a step with their answers: those of the data, and those that are drawn."""
        turns = self.turns.at(step)
        drawn = self._drawn(step, [turn for turn in turns if turn.by != DATA])
        found = []
        for turn in turns:
            source = self.sources[turn.source]
            prompt = np.asarray(source.prompt(turn.row), np.int64)
            if turn.by == DATA:
                ids, finish = np.asarray(source.answer(turn.row), np.int64), "stop"
            else:
                ids, finish = drawn[turn.slot]
            ids, finish = self._fitted(turn, np.asarray(ids, np.int64), finish)
            found.append(Taken(turn, prompt, ids, finish))
        return found

    def _fitted(self, turn: Turn, ids: np.ndarray, finish: str) -> tuple[np.ndarray, str]:
        """An answer that keeps to its room (a teacher's may have more tokens here than there) and to tokens
        that the teacher knows."""
        room = self.turns.room(turn)
        if len(ids) > room:
            ids, finish = ids[:room], CUT
        if self.known is not None and not (named := self.known[ids]).all():
            ids, finish = ids[: int(named.argmin())], UNNAMED
        return ids, finish

    def _drawn(self, step: int, turns: list[Turn]) -> dict[int, tuple[list[int], str]]:
        """slot -> (ids, finish) of the turns that are drawn: read where they were kept, else drawn, by all
        processes together, and kept."""
        if not turns:
            return {}
        ranks = self.trainee.ranks
        found = ranks.gather(read(self._file(step)) if ranks.main else None)[0]
        if found is None:
            mine = turns[ranks.rank :: ranks.size]
            parts = ranks.gather(self._answers(step, mine, {turn.by for turn in turns}))
            found = {slot: each for part in parts for slot, each in part.items()}
            if ranks.main:
                write(self._file(step), [(turn, *found[turn.slot]) for turn in turns])
        return found

    def _answers(
        self, step: int, turns: list[Turn], by: set[str]
    ) -> dict[int, tuple[list[int], str]]:
        """This process's turns, drawn now, all of one model in one batch. by: who is asked in any
        process, for its weights are brought together by all of them."""
        found, own = {}, [turn for turn in turns if turn.by == STUDENT]
        if STUDENT in by:
            stamp, batch = f"step-{step}", max(len(own), 1)
            with answering(self.trainee, stamp, self.server, batch=batch) as backend:
                prompts = [self.sources[turn.source].prompt(turn.row).tolist() for turn in own]
                drawn = backend.generate(
                    prompts, self.sampling, self.stop_ids,
                    keys=[turn.slot for turn in own], limits=[self._limit(turn) for turn in own],
                )  # fmt: skip
            found = {turn.slot: (each.tokens, each.finish) for turn, each in zip(own, drawn)}
        others = [turn for turn in turns if turn.by == TEACHER]
        if TEACHER in by:
            limits = [self._limit(turn) for turn in others]
            with self.trainee.cast():
                said = self.guide.answers(others, self.sampling, limits)
            found |= {turn.slot: each for turn, each in zip(others, said, strict=True)}
        return found

    def _limit(self, turn: Turn) -> int:
        return min(self.sampling.max_tokens, self.turns.room(turn))

    def _file(self, step: int) -> Path:
        return path_of(self.folder, step)

    # --- what a run says of its data --------------------------------------------------------------

    def measured(self, steps: int) -> dict[str, Any]:
        """What `steps` steps took (Turns.measured), from the files of what was drawn and from the data."""
        return self.turns.measured(each for step in range(steps) for each in self._lengths(step))

    def report(self, steps: int) -> list[dict[str, Any]]:
        return self.turns.report(self.measured(steps))

    def _lengths(self, step: int) -> Iterator[tuple[Turn, int, str]]:
        """(turn, tokens of its answer, finish) of a step that has been taken."""
        drawn = read(self._file(step)) or {}
        for turn in self.turns.at(step):
            answer = self.sources[turn.source].answer(turn.row)
            ids, finish = drawn.get(turn.slot) or (answer, "stop")
            ids, finish = self._fitted(turn, np.asarray(ids, np.int64), finish)
            yield turn, len(ids), finish
