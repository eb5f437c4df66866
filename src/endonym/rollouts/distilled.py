"""The live loader of distillation: each step's answers, drawn with the weights as they stand, or given.

    step -> row numbers -> (source, row), and by lmbda who answers -> answers -> packed rows

Which rows a step takes and who answers them is a function of (seed, row number), the same on every
rank and in a run that is resumed. What was drawn is kept in a file before it is used: a run that was
killed reads it there and draws nothing twice.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from endonym.core.artifact import flush, machine_error
from endonym.core.errors import DataError
from endonym.data.loader import stretch_of
from endonym.data.mix import Mixture
from endonym.engine.generate import generate
from endonym.engine.sampler import Sampling, uniforms
from endonym.methods.batch import Rows
from endonym.rollouts.asked import Asked
from endonym.rollouts.packing import Place, packed, spread
from endonym.train.seed import seed_for
from endonym.train.trainee import Trainee

STUDENT, TEACHER, DATA = "student", "teacher", "data"

CUT, UNNAMED = "length", "unnamed"
"""Ways in which an answer ends without its stop token: there was no more room, or a token came that the
other model has no name for."""


@dataclass(frozen=True)
class Turn:
    """One row of a step: its number in the run, where it stands in the data, and who answers."""

    slot: int
    source: int
    row: int
    by: str


@dataclass(frozen=True)
class Taken:
    """A turn with its prompt and its answer, as the student's ids. finish: "stop", or as CUT says."""

    turn: Turn
    prompt: np.ndarray
    answer: np.ndarray
    finish: str


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

    A prompt that leaves no room for an answer is left out, and so is one whose answer in the data has no
    room, wherever that answer is asked for: of an answer that is cut off the end would never be learnt. The
    report counts them. DataError where nothing is left of a source that has a share.
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
    ):
        self.sources, self.guide = list(sources), guide
        self.rows_per_step, self.row_length = rows_per_step, row_length
        self.lmbda, self.by, self.sampling, self.stop_ids = lmbda, by, sampling, stop_ids
        self.known, self.aggregate, self.with_given = known, aggregate, with_given
        self.parts, self.folder = parts, folder
        stretch_of(rows_per_step, (0, parts))
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
        idle = [
            one.name
            for one, count, weight in zip(
                self.sources, self.num_rows, weights or [1] * len(self.sources), strict=True
            )
            if weight and not count
        ]
        if idle if weights else not sum(self.num_rows):
            raise DataError(
                "there is nothing to ask",
                where=", ".join(idle),
                wanted=f"a prompt that fits {row_length} tokens with its answer",
                got="; ".join(
                    f"{one.name}: {len(one)} prompts"
                    + (f", the shortest of {one.prompt_lengths.min()} tokens" if len(one) else "")
                    for one in self.sources
                    if one.name in idle
                ),
                do="choose longer rows, or give other data",
            )
        self._joint = np.cumsum([0, *self.num_rows])
        self._is_joint = weights is None and len(self.sources) > 1
        sizes = [int(self._joint[-1])] if self._is_joint else self.num_rows
        shares = None if weights is None else list(weights)
        self.mixture = Mixture.of(sizes, shares, seed_for(sampling.seed, "order"))
        wanted = np.asarray(self.num_rows if weights is None else weights, np.float64)
        self.asked = (wanted / wanted.sum()).tolist()
        told = [
            [one.identity for one in self.sources], shares, rows_per_step, row_length, lmbda, by,
            sampling.model_dump(mode="json"), aggregate, with_given, identity,
        ]  # fmt: skip
        self.identity = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        self.trainee: Trainee | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every row has been taken at least once, without weights."""
        return -(-int(self._joint[-1]) // self.rows_per_step)

    @property
    def too_long(self) -> int:
        """Prompts that are left out."""
        return sum(map(len, self.sources)) - sum(self.num_rows)

    @property
    def longest(self) -> int:
        """Tokens of the longest row that there may be, the last of which is only predicted."""
        found = 1
        for one, kept, rooms in zip(self.sources, self.fitting, self.rooms):
            prompts, answers = one.prompt_lengths[kept], one.answer_lengths[kept]
            drawn = self.sampling.max_tokens if self.lmbda > 0 or self.by == TEACHER else 0
            most = np.where(answers > 0, np.maximum(answers, drawn), self.sampling.max_tokens)
            found = max(found, int((prompts + np.minimum(most, rooms[kept])).max(initial=1)))
        return found

    # --- what the loop asks for -----------------------------------------------------------------

    def sample(self) -> Rows:
        """Rows of the largest shape that this process may get."""
        shape = (self.rows_per_step // self.parts, min(-(-self.longest // 8) * 8, self.row_length))
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
        pairs = [(each.prompt, each.answer) for each in taken]
        whole, places = packed(pairs, weights, self.row_length, part[1])
        if self.with_given:
            given = [
                torch.full((len(each.answer),), weight if each.turn.by == DATA else 0.0)
                for each, weight in zip(taken, weights)
            ]
            whole = replace(whole, extra={"given": spread(whole, places, given)})
        mine = stretch_of(len(whole), part)
        rows = whole.each(lambda each: each[mine])
        here = [
            (each, replace(place, line=place.line - mine.start))
            for each, place in zip(taken, places)
            if mine.start <= place.line < mine.stop
        ]
        return self.guide.fill(rows, [each for each, _ in here], [place for _, place in here])

    def names(self, step: int) -> list[str]:
        """For each prompt of a step its source, its row in it, and who answered."""
        return [
            f"{self.sources[turn.source].name}: {turn.row} ({turn.by})" for turn in self.turns(step)
        ]

    def state(self, step: int) -> dict[str, float]:
        """Before step `step`: "epoch/NAME" of each source; and the share of the step that is on-policy."""
        epochs = self.mixture.epochs(step * self.rows_per_step)
        epochs = epochs * len(self.sources) if self._is_joint else epochs
        turns = self.turns(step)
        share = sum(turn.by == STUDENT for turn in turns) / len(turns)
        return {
            **{f"epoch/{one.name}": epoch for one, epoch in zip(self.sources, epochs)},
            "on_policy": share,
        }

    # --- a step's turns and answers -------------------------------------------------------------

    def turns(self, step: int) -> list[Turn]:
        """The rows of a step and who answers each.

        A row's coin is a function of (seed, row number). (Typhoon-S's release tosses one for each
        micro-batch of one row, the same thing, but with each process's own generator; GKD, arXiv:2306.13649,
        algorithm 1, one for each step.)
        """
        slots = np.arange(step * self.rows_per_step, (step + 1) * self.rows_per_step)
        source, row = self.mixture.at(slots)
        if self._is_joint:
            source = np.searchsorted(self._joint, row, side="right") - 1
            row = row - self._joint[source]
        keys = torch.from_numpy(slots)
        seed = seed_for(self.sampling.seed, "lmbda")
        coin = uniforms(seed, keys, torch.zeros_like(keys)).tolist()
        found = []
        for slot, number, place, side in zip(slots.tolist(), source.tolist(), row.tolist(), coin):
            index = int(self.fitting[number][place])
            alone = self.by == DATA and not self.sources[number].answer_lengths[index]
            by = STUDENT if side < self.lmbda or alone else self.by
            found.append(Turn(slot, number, index, by))
        return found

    def taken(self, step: int) -> list[Taken]:
        """The turns of a step with their answers: those of the data, and those that are drawn."""
        turns = self.turns(step)
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
        room = int(self.rooms[turn.source][turn.row])
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
            parts = ranks.gather(self._answers(mine, {turn.by for turn in turns}))
            found = {slot: each for part in parts for slot, each in part.items()}
            if ranks.main:
                write(self._file(step), [(turn, *found[turn.slot]) for turn in turns])
        return found

    def _answers(self, turns: list[Turn], by: set[str]) -> dict[int, tuple[list[int], str]]:
        """This process's turns, drawn now, all of one model in one batch. by: who is asked in any
        process, for its weights are brought together by all of them."""
        found, own = {}, [turn for turn in turns if turn.by == STUDENT]
        if STUDENT in by:
            with self.trainee.sampling() as model:
                prompts = [self.sources[turn.source].prompt(turn.row).tolist() for turn in own]
                drawn = generate(
                    model, prompts, self.sampling, self.stop_ids, batch=max(len(own), 1),
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
        return min(self.sampling.max_tokens, int(self.rooms[turn.source][turn.row]))

    def _file(self, step: int) -> Path:
        return self.folder / f"{step:06d}.parquet"

    # --- what a run says of its data --------------------------------------------------------------

    def measured(self, steps: int) -> dict[str, Any]:
        """What `steps` steps took, by source, language and origin: rows, how many of them the student
        answered (on_policy), answers that ended without their stop token (truncated), and tokens of
        prompts and of answers. Counted from the files of what was drawn and from the data."""
        keys = ("rows", "on_policy", "truncated", "prompt_tokens", "answer_tokens")
        tables: dict[str, dict[str, dict[str, int]]] = {
            "sources": {}, "languages": {}, "origins": {},
        }  # fmt: skip
        whole = dict.fromkeys(keys, 0)
        for step in range(steps):
            for turn, prompt, answer, finish in self._lengths(step):
                one = self.sources[turn.source]
                counts = (1, turn.by == STUDENT, finish != "stop", prompt, answer)
                rows = [
                    tables["sources"].setdefault(one.name, dict.fromkeys(keys, 0)),
                    whole,
                    *(
                        tables[name].setdefault(
                            labels.names[labels.codes[turn.row]], dict.fromkeys(keys, 0)
                        )
                        for name, labels in (("languages", one.languages), ("origins", one.sources))
                    ),
                ]
                for row in rows:
                    for key, count in zip(keys, counts):
                        row[key] += int(count)
        return whole | tables

    def _lengths(self, step: int) -> Iterator[tuple[Turn, int, int, str]]:
        """(turn, tokens of its prompt, of its answer, finish) of a step that has been taken."""
        drawn = read(self._file(step)) or {}
        for turn in self.turns(step):
            one = self.sources[turn.source]
            prompt = int(one.prompt_lengths[turn.row])
            ids, finish = drawn.get(turn.slot) or (one.answer(turn.row), "stop")
            ids, finish = self._fitted(turn, np.asarray(ids, np.int64), finish)
            yield turn, prompt, len(ids), finish

    def report(self, steps: int) -> list[dict[str, Any]]:
        """Of each source: the share of rows that it was to get and got, its epochs, and its prompts that
        are left out (dropped)."""
        found = self.measured(steps)["sources"]
        total = max(steps * self.rows_per_step, 1)
        out = []
        for one, asked, size in zip(self.sources, self.asked, self.num_rows):
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


def write(file: Path, drawn: Sequence[tuple[Turn, list[int], str]]) -> None:
    """A step's drawn answers: slot, by, tokens, finish. Whole on the disk, or not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("slot", pa.int64()), ("by", pa.string()), ("tokens", pa.list_(pa.uint32())),
         ("finish", pa.string())]
    )  # fmt: skip
    columns = [
        [turn.slot for turn, *_ in drawn],
        [turn.by for turn, *_ in drawn],
        [list(ids) for _, ids, _ in drawn],
        [finish for *_, finish in drawn],
    ]
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns, schema=schema), aside, compression="zstd")
        flush(aside)
        os.replace(aside, file)
        flush(file.parent)
    except OSError as error:
        raise machine_error(error, file) from error


def read(file: Path) -> dict[int, tuple[list[int], str]] | None:
    """slot -> (ids, finish), as write() kept them; None where there is no such file."""
    import pyarrow.parquet as pq

    if not file.is_file():
        return None
    rows = pq.read_table(file).to_pylist()
    return {row["slot"]: (row["tokens"], row["finish"]) for row in rows}
