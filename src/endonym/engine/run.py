"""One call of generate under way: which prompts wait, which are in which row of the cache, what came out.

Shapes: B rows, D width.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from endonym.core.errors import DataError
from endonym.engine.sampler import Sampling, draw, uniforms
from endonym.engine.text import Decode, Text
from endonym.model.checkpoint import CausalLM
from endonym.model.decode import step_of

SIMILAR = 0.7
"""Prompts are read together if the shortest has this share of the longest's tokens: of 8 to 64 tokens
32 prompts then cost a third less than in one batch, where nearly half would be padding."""

TOGETHER = 256
"""Tokens of prompts that are read together on a CPU, if there are several: what lies between two
products then stays in the processor's own cache, and no memory is asked for anew."""


@dataclass
class Generation:
    """What was drawn for one prompt.

    tokens:       including the stop token, or those of the stop string, that ended it
    logprobs:     of each token in the distribution it was drawn from
    raw_logprobs: of each token at temperature 1 without truncation
    finish:       "stop" (a stop id or a stop string), "length" (max_tokens, or the model's context is
                  full) or "cancelled"
    text:         where generate was given `decode`, what the tokens say: without the stop token, cut
                  before the stop string
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    raw_logprobs: list[float] = field(default_factory=list)
    finish: str = "length"
    text: str | None = None


@dataclass(frozen=True)
class _Read:
    """A prompt after it was read: its row of the cache and the hidden state [D] of its last token."""

    prompt: list[int]
    row: list[Tensor]
    hidden: Tensor


class Run:
    """Prompts become Generations, at most `batch` at a time; arguments as generate's."""

    def __init__(
        self,
        model: CausalLM,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        stop_ids: frozenset[int],
        batch: int,
        *,
        keys: Sequence[int],
        limits: Sequence[int],
        stops: Sequence[str] = (),
        decode: Decode | None = None,
        on_token: Callable[[int, int], None] | None = None,
        cancel: Callable[[int], bool] | None = None,
    ):
        self.model, self.prompts, self.sampling, self.limits = model, prompts, sampling, limits
        self.stop_ids, self.on_token, self.cancel = stop_ids, on_token, cancel
        self.device = model.head.device
        self.done = [Generation() for _ in prompts]
        self.texts = None if decode is None else [Text(decode, stops) for _ in prompts]
        self.keys = torch.tensor(keys, dtype=torch.long, device=self.device)
        # The longest first: prompts of similar length are read together, with little padding, and
        # equal ones are neighbours.
        order = sorted(
            range(len(prompts)), key=lambda index: (-len(prompts[index]), prompts[index])
        )
        self.waiting = deque(order)
        self.batch = min(batch, len(prompts))
        self.room = max(len(each) + limit for each, limit in zip(prompts, limits))
        self.step = step_of(model, self.batch, self.room)
        self.cache = None
        self.held: _Read | None = None  # while prompts that equal it wait
        # By row of the cache: the prompt under way, on both sides, its newest token, and how many
        # tokens it has been answered with.
        self.rows: list[int | None] = []
        self.index = torch.zeros(0, dtype=torch.long, device=self.device)
        self.last, self.count = self.index, self.index

    def steps(self) -> Iterator[None]:
        """Draws a token for each prompt that is read or under way, and yields, until all are done."""
        while True:
            self._cancel()
            free = [place for place, row in enumerate(self.rows) if row is None]
            if self.waiting and (len(free) == len(self.rows) or (free and self.cache.can_refill)):
                self._start(free)
            elif len(free) == len(self.rows):
                return
            else:
                if free:
                    self._close(free)
                self._draw(self.step(self.last, self.cache), range(len(self.rows)))
            yield

    def _cancel(self) -> None:
        """Lets go of the prompts that are no longer wanted."""
        if self.cancel is None:
            return
        for place, index in enumerate(self.rows):
            if index is not None and self.cancel(index):
                self.rows[place] = None
                self._end(index, "cancelled")
        unwanted = {index for index in self.waiting if self.cancel(index)}
        for index in unwanted:
            self._end(index, "cancelled")
        self.waiting = deque(index for index in self.waiting if index not in unwanted)

    def _start(self, free: list[int]) -> None:
        """Puts waiting prompts into free rows and draws the first token of each."""
        if self.cache is None or not self.cache.can_refill:
            count = min(self.batch, len(self.waiting))
            self.rows, free = [None] * count, list(range(count))
            self.index = torch.zeros(count, dtype=torch.long, device=self.device)
            self.last, self.count = self.index.clone(), self.index.clone()
            self.cache = self.model.new_cache(count, self.room)
        free = free[: len(self.waiting)]
        taken = [self.waiting.popleft() for _ in free]
        equal: list[list[int]] = []  # places of equal prompts, which are neighbours
        for place, index in zip(free, taken):
            self.rows[place] = index
            if not equal or self.prompts[index] != self.prompts[self.rows[equal[-1][0]]]:
                equal.append([])
            equal[-1].append(place)
        places = torch.tensor(free, device=self.device)
        self.index[places] = torch.tensor(taken, device=self.device)
        self.count[places] = 0
        self._draw(self._hidden(equal), free)

    def _hidden(self, equal: list[list[int]]) -> Tensor:
        """The last hidden state [B, D] of the prompt of each place, which is read, unless it was: the
        places of `equal` have one prompt each."""
        prompts = [self.prompts[self.rows[places[0]]] for places in equal]
        copies = torch.tensor([len(places) for places in equal], device=self.device)
        if not self.cache.can_refill:
            self.cache = self.model.new_cache(len(prompts), self.room)
            hidden = self._through(prompts, self.cache)
            number = torch.arange(len(prompts), device=self.device).repeat_interleave(copies)
            if len(number) > len(prompts):
                self.cache.keep(number)
            return hidden[number]
        known = self.held is not None and prompts[0] == self.held.prompt
        new = equal[known:]
        found = []
        if known:
            self.cache.fill(equal[0], self.held.row, len(prompts[0]))
            found.append(self.held.hidden[None])
        for part in self._parts(prompts[known:]):
            first = [places[0] for places in new[part]]
            start = self.cache.start(torch.tensor(first, device=self.device))
            found.append(self._through(prompts[known:][part], start))
        hidden = torch.cat(found)
        for places, prompt in zip(new, prompts[known:]):
            if len(places) > 1:
                self.cache.fill(places[1:], self.cache.row(places[0], len(prompt)), len(prompt))
        if not self.waiting or self.prompts[self.waiting[0]] != prompts[-1]:
            self.held = None
        elif new:
            row = self.cache.row(equal[-1][0], len(prompts[-1]))
            self.held = _Read(prompts[-1], row, hidden[-1])
        return hidden.repeat_interleave(copies, 0)

    def _parts(self, prompts: list[list[int]]) -> Iterator[slice]:
        """Which of prompts, the longest first, are read together."""
        start = 0
        for end in range(1, len(prompts) + 1):
            longest = len(prompts[start])
            if (
                end == len(prompts)
                or len(prompts[end]) < SIMILAR * longest
                or (self.device.type == "cpu" and (end + 1 - start) * longest > TOGETHER)
            ):
                yield slice(start, end)
                start = end

    def _through(self, prompts: list[list[int]], cache) -> Tensor:
        """Reads prompts into the rows of a cache: the hidden states [B, D] of their last tokens."""
        lengths = torch.tensor([len(each) for each in prompts])
        longest = int(lengths.max())
        tokens = torch.tensor([each + [0] * (longest - len(each)) for each in prompts])
        segments = (torch.arange(longest) < lengths[:, None]).long()
        hidden = self.model(tokens.to(self.device), segments=segments.to(self.device), cache=cache)
        return hidden[torch.arange(len(prompts)), lengths - 1]

    def _draw(self, hidden: Tensor, places: Sequence[int]) -> None:
        """The next token of the rows `places` out of their hidden states [len(places), D]."""
        here = slice(None)
        if len(places) < len(self.rows):
            here = torch.tensor(places, device=self.device)
        uniform = None
        if self.sampling.temperature:
            uniform = uniforms(self.sampling.seed, self.keys[self.index[here]], self.count[here])
        tokens, logprobs, raw = draw(self.step.logits(hidden), self.sampling, uniform)
        self.last[here] = tokens
        self.count[here] += 1
        # One transfer for all that the rows need to know
        drawn = torch.stack([tokens.double(), logprobs.double(), raw.double()]).tolist()
        for place, token, logprob, at_one in zip(places, *drawn):
            index, token = self.rows[place], int(token)
            if at_one != at_one:
                raise DataError(
                    "the model's logits are no numbers", where=f"prompt {index}", got="nan"
                )
            answer = self.done[index]
            answer.tokens.append(token)
            answer.logprobs.append(logprob)
            answer.raw_logprobs.append(at_one)
            if self.on_token is not None:
                self.on_token(index, token)
            finish = "length" if len(answer.tokens) == self.limits[index] else None
            if token in self.stop_ids:
                finish = "stop"
            elif self.texts is not None:
                self.texts[index].push(token)
                finish = "stop" if self.texts[index].ended else finish
            if finish is not None:
                self.rows[place] = None
                self._end(index, finish)

    def _end(self, index: int, finish: str) -> None:
        """Prompt number `index` is answered."""
        self.done[index].finish = finish
        if self.texts is not None:
            self.texts[index].finish()
            self.done[index].text = self.texts[index].text

    def _close(self, free: list[int]) -> None:
        """The batch shrinks to the rows under way: the last of them move into the free places."""
        count = len(self.rows) - len(free)
        under_way = [place for place, row in enumerate(self.rows) if row is not None]
        last = iter(place for place in under_way if place >= count)
        places = [next(last) if self.rows[place] is None else place for place in range(count)]
        index = torch.tensor(places, device=self.device)
        self.cache.keep(index)
        self.rows = [self.rows[place] for place in places]
        self.index, self.last, self.count = (
            each[index] for each in (self.index, self.last, self.count)
        )
