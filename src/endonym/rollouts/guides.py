"""How the teacher comes to the student's rows: beside it, in turn, from rows of its own, from a cache.

    Beside    the objective runs the teacher on the rows that it is given
    InTurn    all of a step's rows are run before the student's first: one of the two is on the device
    Aside     the same on rows of the teacher's own, which begin with a text that it alone sees
    Spanning  the same, cut by the teacher's own tokenizer (methods/spans.py)
    Cached    nothing runs: the states were kept (rollouts/states.py)

Shapes: B rows, T time, D the teacher's width.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from endonym.engine.generate import generate
from endonym.engine.sampler import Sampling
from endonym.methods.batch import Rows
from endonym.methods.logprobs import selected_logprobs
from endonym.rollouts.asked import Asked, ids_of
from endonym.rollouts.boundaries import Boundaries
from endonym.rollouts.pieces import PackedPieces, Place, answered, least_padding, spread
from endonym.rollouts.states import States
from endonym.rollouts.taken import UNNAMED, Taken
from endonym.rollouts.teacher import Teacher
from endonym.rollouts.turns import DATA, Turn
from endonym.tokenizer.folder import Tokenizer
from endonym.train.trainee import Trainee


class Beside:
    """prompts: for each source what the teacher is asked; table, back: the teacher's id of each of the
    student's ids and the other way round, -1 for none."""

    def __init__(
        self,
        teacher: Teacher,
        prompts: Sequence[Asked],
        stop_ids: set[int],
        table: np.ndarray,
        back: np.ndarray,
    ):
        self.teacher, self.prompts, self.stop_ids = teacher, prompts, stop_ids
        self.table, self.back = table, back

    def ready(self, trainee: Trainee) -> None:
        self.trainee = trainee

    def answers(
        self, turns: Sequence[Turn], sampling: Sampling, limits: list[int]
    ) -> list[tuple[list[int], str]]:
        prompts = [self.prompt(turn).tolist() for turn in turns]
        with self.teacher.whole() as model:
            drawn = generate(
                model, prompts, sampling, self.stop_ids, batch=max(len(turns), 1),
                keys=[turn.slot for turn in turns], limits=limits,
            )  # fmt: skip
        return [self.translated(each.tokens, each.finish) for each in drawn]

    def prompt(self, turn: Turn) -> np.ndarray:
        """What the teacher is asked, in its own ids."""
        return self.table[self.prompts[turn.source].prompt(turn.row)]

    def translated(self, ids: list[int], finish: str) -> tuple[list[int], str]:
        """A teacher's answer as the student's ids."""
        ours = self.back[ids]
        if (ours >= 0).all():
            return ours.tolist(), finish
        return ours[: int((ours < 0).argmax())].tolist(), UNNAMED

    def fill(self, rows: Rows, taken: Sequence[Taken], places: Sequence[Place]) -> Rows:
        return rows


class InTurn(Beside):
    """Rows get extra["states"], in the host's memory. They are run in the parts in which the loop will
    give them to the student, so that both are computed as they would be beside one another."""

    def fill(self, rows: Rows, taken: Sequence[Taken], places: Sequence[Place]) -> Rows:
        return with_parts(rows, states=self.run(rows))

    def run(self, rows: Rows) -> Tensor:
        """Hidden states [B, T, D] of rows."""
        with self.trainee.cast():
            parts = self.trainee.forward.split(rows)
            return self.teacher.states_of(parts, rows.tokens.shape[1])


class Aside(InTurn):
    """The teacher reads rows of its own, prompts and answers; its states at the answers' tokens are put
    where the student predicts them, and those of its prompts are dropped. length: its context."""

    def __init__(self, *given, length: float):
        super().__init__(*given)
        self.length = length

    def fill(self, rows: Rows, taken: Sequence[Taken], places: Sequence[Place]) -> Rows:
        states, own = self.own_states([(each.turn, self.table[each.answer]) for each in taken])
        if not own:
            return with_parts(rows, states=states.new_zeros(*rows.tokens.shape, states.shape[2]))
        found = [states[each.slice] for each in own]
        return with_parts(rows, states=spread(rows, places, found))

    def own_states(self, answers: Sequence[tuple[Turn, np.ndarray]]) -> tuple[Tensor, list[Place]]:
        """The teacher's states on rows of its own, and where each answer lies in them."""
        pairs = [(self.prompt(turn), ids) for turn, ids in answers]
        longest = max((len(prompt) + len(ids) for prompt, ids in pairs), default=1)
        assert longest <= self.length, f"{longest} tokens in a context of {self.length}"
        pieces = [answered(prompt, ids, 1.0) for prompt, ids in pairs]
        packed = PackedPieces(pieces, longest, fit=least_padding)
        places = [place.last(len(ids)) for place, (_, ids) in zip(packed.places, pairs)]
        return self.run(packed.part()), places


class Spanning(Aside):
    """Another tokenizer: the teacher reads the answer's text in its own tokens. Rows get

    extra["states"]  before each span of text that both have cut out, the teacher's state there
    extra["starts"], extra["logps"]  as methods/spans.py takes them
    weights          at the position before each span those of its tokens together, elsewhere 0

    words, theirs: student's and teacher's tokenizer; shared: the tokens of both, (student's id,
    teacher's id); head, cap: the teacher's; template: variables of its chat template.
    """

    def __init__(
        self,
        *given,
        length: float,
        words: Tokenizer,
        theirs: Tokenizer,
        shared: set[tuple[int, int]],
        head: Tensor,
        cap: float | None,
        temperature: float,
        template: dict,
    ):
        super().__init__(*given, length=length)
        self.words, self.theirs, self.shared = words, theirs, shared
        self.head, self.cap, self.temperature, self.template = head, cap, temperature, template
        self.boundaries = Boundaries(words, theirs)

    def prompt(self, turn: Turn) -> np.ndarray:
        return np.asarray(self.prompts[turn.source].prompt(turn.row), np.int64)

    def translated(self, ids: list[int], finish: str) -> tuple[list[int], str]:
        return _said(self.words, self.theirs.decode(ids), finish == "stop", {}), finish

    def fill(self, rows: Rows, taken: Sequence[Taken], places: Sequence[Place]) -> Rows:
        answers = [(each.turn, self._answer(each)) for each in taken]
        answers = [
            (turn, ids[: int(min(len(ids), self.length - len(self.prompt(turn))))])
            for turn, ids in answers
        ]
        states, own = self.own_states(answers)
        shape = rows.tokens.shape
        found = states.new_zeros(*shape, states.shape[2])
        weights, logps = torch.zeros(shape), torch.zeros(shape)
        starts = torch.zeros(shape, dtype=torch.int64)
        for each, place, (_, ids), there in zip(taken, places, answers, own, strict=True):
            spans = self.boundaries.spans(each.answer, ids)
            if not spans:
                continue
            line, first = place.line, place.first
            at = torch.tensor([first + span.first for span in spans])
            found[line, at] = states[there.line, [there.first + span.begin for span in spans]]
            for span, column in zip(spans, at.tolist()):
                inside = slice(first + span.first, first + span.last)
                weights[line, column] = rows.weights[line, inside].sum()
                pair = (int(each.answer[span.first]), int(ids[span.begin]))
                alone = span.last - span.first == span.end - span.begin == 1
                if not (alone and pair in self.shared):
                    starts[line, inside] = column + 1
            logp = self._logps(states[there.slice], ids)
            sums = np.concatenate([[0.0], np.cumsum(logp)])
            logps[line, at] = torch.tensor(
                [sums[span.end] - sums[span.begin] for span in spans], dtype=torch.float32
            )
        rows = replace(rows, weights=weights)
        return with_parts(rows, states=found, starts=starts, logps=logps)

    def _answer(self, each: Taken) -> np.ndarray:
        """An answer in the teacher's tokens, as its own template writes it."""
        if each.turn.by == DATA:
            return np.asarray(self.prompts[each.turn.source].answer(each.turn.row), np.int64)
        text = self.words.decode(each.answer.tolist())
        return np.asarray(_said(self.theirs, text, each.finish == "stop", self.template), np.int64)

    @torch.no_grad()
    def _logps(self, states: Tensor, ids: np.ndarray) -> np.ndarray:
        """log p of each token of an answer, float64."""
        device = self.head.device
        with self.trainee.cast():
            found = selected_logprobs(
                states.to(device), self.head, torch.from_numpy(ids).to(device), self.cap,
                self.temperature,
            )  # fmt: skip
        return found.double().cpu().numpy()


def _said(words: Tokenizer, text: str, ended: bool, template: dict) -> list[int]:
    """Ids of an assistant's words, with the token that ends its turn where it has ended."""
    if not text.strip():  # which no template takes for an answer
        return [words.turn_end_id] * ended
    asked = [{"role": "user", "content": "?"}]
    _, ids = ids_of(words, asked, {"role": "assistant", "content": text}, None, template)
    return ids if ended else ids[:-1]


class Cached:
    """The states that a cache holds for the very prompt and answer; DataError names a row that it has
    not."""

    def __init__(self, states: States, table: np.ndarray):
        self.states, self.table = states, table

    def ready(self, trainee: Trainee) -> None:
        pass

    def answers(self, turns, sampling, limits) -> list[tuple[list[int], str]]:
        raise AssertionError("without a teacher nobody answers in its place")

    def fill(self, rows: Rows, taken: Sequence[Taken], places: Sequence[Place]) -> Rows:
        found = [self.states.of(self.table[each.prompt], self.table[each.answer]) for each in taken]
        if not found:
            return with_parts(rows, states=torch.zeros(*rows.tokens.shape, self.states.width))
        return with_parts(rows, states=spread(rows, places, found))


def with_parts(rows: Rows, **parts: Tensor) -> Rows:
    """The rows with more extra parts."""
    return replace(rows, extra={**rows.extra, **parts})
