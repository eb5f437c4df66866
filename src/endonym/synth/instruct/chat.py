"""Whatever answers messages: a server that speaks OpenAI's chat protocol, or a model folder of ours.

    Chat.answers(requests, take)    take(index of the request, Answer, or None where the call failed)

take is called for each request once, the moment its answer is there, from whatever thread it came in: so
that it can be written down before anything else happens.

A failed call is no answer and no verdict: whoever asked drops the sample and counts it. An answer that
was cut off says so (finish "length"). Two requests that are to be answered differently have different
seeds.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from endonym.rewards.chat import Answer, Server, Unreached

if TYPE_CHECKING:
    from endonym.core.artifact import Artifact
    from endonym.core.context import Context


@dataclass(frozen=True)
class Request:
    messages: list[dict[str, str]]
    temperature: float = 0.0
    max_tokens: int = 1024
    seed: int = 0

    def key(self, name: str) -> str:
        """What names the answer of the model `name`: a hash of all that it depends on."""
        told = json.dumps([name, asdict(self)], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()


def ask(text: str, **settings: Any) -> Request:
    """A request of one user's message."""
    return Request([{"role": "user", "content": text}], **settings)


Take = Callable[[int, Answer | None], None]


class Chat(Protocol):
    name: str
    """Of the model: with a request it names the answer."""

    def answers(self, requests: Sequence[Request], take: Take) -> None: ...


class Served:
    """A model at a server (rewards/chat.py says where: <PREFIX>_URL, else OPENAI_BASE_URL)."""

    def __init__(self, server: Server):
        self.name, self._server = server.model, server

    @classmethod
    def named(cls, model: str, prefix: str) -> "Served":
        return cls(Server.from_environment(model, prefix))

    def answers(self, requests: Sequence[Request], take: Take) -> None:
        with ThreadPoolExecutor(self._server.parallel, thread_name_prefix="chat") as threads:
            asked = [
                threads.submit(self._answer, number, each, take)
                for number, each in enumerate(requests)
            ]
            try:
                for done in asked:
                    done.result()
            finally:
                threads.shutdown(cancel_futures=True)

    def _answer(self, number: int, request: Request, take: Take) -> None:
        try:
            answer = self._server.ask(**asdict(request))
        except Unreached:
            answer = None
        take(number, answer)


class Own:
    """A model folder of ours, answered by engine/generate."""

    def __init__(self, model: "Artifact", context: "Context", precision: str = "float32"):
        import torch

        from endonym.model import hf
        from endonym.tokenizer.folder import Tokenizer

        self.name = model.address
        self._tokenizer = Tokenizer.load(model.path)
        dtype = getattr(torch, precision)
        self._model = hf.load(model.path, device=context.device, dtype=dtype)
        self._rows = context.rows_per_device or 32

    def answers(self, requests: Sequence[Request], take: Take) -> None:
        """Batches of requests that are drawn alike; one that leaves no room in the model's context is
        a failed call."""
        from endonym.engine.generate import generate
        from endonym.engine.sampler import Sampling

        alike: dict[tuple[float, int], list[int]] = {}
        for number, each in enumerate(requests):
            alike.setdefault((each.temperature, each.max_tokens), []).append(number)
        longest = self._model.config.max_position_embeddings
        for (temperature, max_tokens), numbers in alike.items():
            prompts = {n: self._tokenizer.encode_prompt(requests[n].messages) for n in numbers}
            for n in numbers:
                if len(prompts[n]) >= longest:
                    take(n, None)
            fit = [n for n in numbers if len(prompts[n]) < longest]
            fit.sort(key=lambda n: (-len(prompts[n]), n))
            sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
            for at in range(0, len(fit), self._rows):
                batch = fit[at : at + self._rows]
                done = generate(
                    self._model,
                    [prompts[n] for n in batch],
                    sampling,
                    self._tokenizer.stop_ids,
                    batch=self._rows,
                    keys=[int(requests[n].key(self.name)[:15], 16) for n in batch],
                )
                for n, each in zip(batch, done):
                    take(n, Answer(self._said(each.tokens), each.finish))

    def _said(self, tokens: list[int]) -> str:
        stop = self._tokenizer.stop_ids
        return self._tokenizer.decode(tokens[:-1] if tokens and tokens[-1] in stop else tokens)
