"""Answers out of prompts: batched generation with a key/value cache, prompts of any lengths.

Rows that finish make room at once: for the next prompt while some wait, else by leaving the batch.
"""

import hashlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch

from endonym.core.errors import DataError
from endonym.engine.sampler import Sampling, draw, uniforms
from endonym.model.checkpoint import CausalLM
from endonym.model.decode import step_of

SIMILAR = 0.7
"""Prompts are read together if the shortest has this share of the longest's tokens: of 8 to 64 tokens
32 prompts then cost a third less than in one batch, where nearly half would be padding."""


@dataclass
class Generation:
    """What was drawn for one prompt.

    tokens:       including the stop token that ended it
    logprobs:     of each token in the distribution it was drawn from
    raw_logprobs: of each token at temperature 1 without truncation
    finish:       "stop" (a stop id) or "length" (max_tokens, or the model's context is full)
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    raw_logprobs: list[float] = field(default_factory=list)
    finish: str = "length"


def generate(
    model: CausalLM,
    prompts: list[list[int]],
    sampling: Sampling,
    stop_ids: Iterable[int] = (),
    *,
    batch: int = 32,
    keys: list[int] | None = None,
    limits: list[int] | None = None,
    on_token: Callable[[int, int], None] | None = None,
) -> list[Generation]:
    """One Generation for each prompt, in the prompts' order, at most `batch` of them at a time.

    keys: what an item's random numbers depend on besides the seed and the position. Left out, the
    prompt's tokens and, where the same prompt stands several times, how manieth it is: an item draws
    the same numbers whatever else is generated beside it. (Its logits may still differ in the last
    bits with the shape of the batch.)
    limits: the most tokens of each answer, where they are not all sampling.max_tokens.
    on_token: called with the prompt's index and each token when it is drawn.
    """
    if not prompts:
        return []
    run = _Run(model, prompts, sampling, frozenset(stop_ids), batch, keys, limits, on_token)
    with torch.inference_mode():
        for _ in run.steps():
            pass
    return run.done


def stream(
    model: CausalLM, prompt: list[int], sampling: Sampling, stop_ids: Iterable[int] = ()
) -> Iterator[int]:
    """The tokens of one answer as they are drawn, the stop token included."""
    run = _Run(model, [prompt], sampling, frozenset(stop_ids), 1)
    steps = run.steps()
    while True:
        with torch.inference_mode():  # not around the yield: the reader's own code is not ours
            if next(steps, _END) is _END:
                return
        yield run.done[0].tokens[-1]


_END = object()


class _Run:
    """The state of one call: which prompts wait, which are under way in which row, what came out."""

    def __init__(
        self, model, prompts, sampling, stop_ids, batch, keys=None, limits=None, on_token=None
    ):
        self.model, self.prompts, self.sampling = model, prompts, sampling
        self.stop_ids, self.on_token = stop_ids, on_token
        self.device = model.head.device
        wanted = limits or [sampling.max_tokens] * len(prompts)
        self.limits = [
            _limit(model, index, each, most)
            for index, (each, most) in enumerate(zip(prompts, wanted, strict=True))
        ]
        self.done = [Generation() for _ in prompts]
        keys = content_keys(prompts) if keys is None else keys
        self.keys = torch.tensor(keys, dtype=torch.long, device=self.device)
        # The longest first: prompts of similar length are read together, with little padding.
        self.waiting = deque(sorted(range(len(prompts)), key=lambda index: -len(prompts[index])))
        self.batch = min(batch, len(prompts))
        self.room = max(len(each) + limit for each, limit in zip(prompts, self.limits))
        self.step = step_of(model, self.batch, self.room)
        self.cache = None
        # By row of the cache: the prompt under way, on both sides, and its newest token.
        self.rows: list[int | None] = []
        self.index = torch.zeros(0, dtype=torch.long, device=self.device)
        self.last = torch.zeros_like(self.index)

    def steps(self) -> Iterator[None]:
        """Draws a token for each prompt that is read or under way, and yields, until all are done."""
        while self.waiting or any(row is not None for row in self.rows):
            free = [place for place, row in enumerate(self.rows) if row is None]
            if self.waiting and (len(free) == len(self.rows) or (free and self.cache.can_refill)):
                self._read(free)
                yield
                continue
            if free:
                self._close(free)
            self._draw(self.step(self.last, self.cache), list(range(len(self.rows))))
            yield

    def _read(self, free: list[int]) -> None:
        """Reads waiting prompts of similar length into free rows and draws the first token of each."""
        if self.cache is None or not self.cache.can_refill:
            count = min(self.batch, len(self.waiting))
            self.cache = self.model.new_cache(count, self.room)
            self.rows, free = [None] * count, list(range(count))
            self.index = torch.zeros(count, dtype=torch.long, device=self.device)
            self.last = torch.zeros_like(self.index)
        longest = len(self.prompts[self.waiting[0]])
        if self.cache.can_refill:
            close = (each for each in self.waiting if len(self.prompts[each]) >= SIMILAR * longest)
            free = [place for place, _ in zip(free, close)]
        taken = [self.waiting.popleft() for _ in free]
        prompts = [self.prompts[index] for index in taken]
        tokens = torch.tensor([each + [0] * (longest - len(each)) for each in prompts])
        lengths = torch.tensor([len(each) for each in prompts])
        segments = (torch.arange(longest) < lengths[:, None]).long()
        places = torch.tensor(free, device=self.device)
        cache = self.cache.start(places) if self.cache.can_refill else self.cache
        hidden = self.model(tokens.to(self.device), segments=segments.to(self.device), cache=cache)
        for place, index in zip(free, taken):
            self.rows[place] = index
        self.index[places] = torch.tensor(taken, device=self.device)
        self._draw(hidden[torch.arange(len(taken)), lengths - 1], free)

    def _draw(self, hidden: torch.Tensor, places: list[int]) -> None:
        """The next token of the rows `places` out of their hidden states [len(places), D]."""
        here = torch.tensor(places, device=self.device)
        uniform = None
        if self.sampling.temperature:
            count = [len(self.done[self.rows[place]].tokens) for place in places]
            count = torch.tensor(count, device=self.device)
            uniform = uniforms(self.sampling.seed, self.keys[self.index[here]], count)
        tokens, logprobs, raw = draw(self.step.logits(hidden), self.sampling, uniform)
        self.last[here] = tokens
        # One transfer for all that the rows need to know
        drawn = torch.stack([tokens.double(), logprobs.double(), raw.double()]).tolist()
        for place, token, logprob, at_one in zip(places, *drawn):
            index, token = self.rows[place], int(token)
            answer = self.done[index]
            answer.tokens.append(token)
            answer.logprobs.append(logprob)
            answer.raw_logprobs.append(at_one)
            if self.on_token is not None:
                self.on_token(index, token)
            if token in self.stop_ids:
                answer.finish = "stop"
            if token in self.stop_ids or len(answer.tokens) == self.limits[index]:
                self.rows[place] = None

    def _close(self, free: list[int]) -> None:
        """The batch shrinks to the rows under way: the last of them move into the free places."""
        count = len(self.rows) - len(free)
        under_way = [place for place, row in enumerate(self.rows) if row is not None]
        last = iter(place for place in under_way if place >= count)
        places = [next(last) if self.rows[place] is None else place for place in range(count)]
        index = torch.tensor(places, device=self.device)
        self.cache.keep(index)
        self.rows = [self.rows[place] for place in places]
        self.index, self.last = self.index[index], self.last[index]


def content_keys(prompts: list[list[int]]) -> list[int]:
    """63-bit keys out of each prompt's tokens and its number among equal prompts."""
    seen: Counter[bytes] = Counter()
    keys = []
    for prompt in prompts:
        content = array("q", prompt).tobytes()
        number = seen[content].to_bytes(8, "little")
        seen[content] += 1
        digest = hashlib.blake2b(number + content, digest_size=8).digest()
        keys.append(int.from_bytes(digest, "little") >> 1)
    return keys


def _limit(model: CausalLM, index: int, prompt: list[int], most: int) -> int:
    """How many tokens prompt number `index` may be answered with: `most`, if the context has room."""
    if not prompt:
        raise DataError("a prompt is empty", where=f"prompt {index}", wanted="at least one token")
    context = getattr(model.config, "max_position_embeddings", None)
    if context is None:
        return most
    if len(prompt) >= context:
        raise DataError(
            "a prompt fills the model's context",
            where=f"prompt {index}",
            wanted=f"fewer than {context} tokens (max_position_embeddings)",
            got=len(prompt),
            do="shorten the prompt",
        )
    return min(most, context - len(prompt))
