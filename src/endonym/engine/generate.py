"""Answers out of prompts: batched generation with a key/value cache, prompts of any lengths.

Rows that finish make room at once: for the next prompt while some wait, else by leaving the batch. Of
equal prompts (the samples of a group) one is read, and the others get copies of its row.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn

from endonym.core.errors import DataError, MachineError
from endonym.engine.run import Generation, Run
from endonym.engine.sampler import Sampling
from endonym.engine.text import Decode
from endonym.model.checkpoint import CausalLM


def generate(
    model: CausalLM,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    stop_ids: Iterable[int] = (),
    *,
    batch: int = 32,
    keys: Sequence[int] | None = None,
    limits: Sequence[int] | None = None,
    on_token: Callable[[int, int], None] | None = None,
    stops: Sequence[str] = (),
    decode: Decode | None = None,
    cancel: Callable[[int], bool] | None = None,
) -> list[Generation]:
    """One Generation for each prompt, in the prompts' order, at most `batch` of them at a time.

    keys: what an item's random numbers depend on besides the seed and the position. Left out, the
    prompt's tokens and, where the same prompt stands several times, how manieth it is: an item draws
    the same numbers whatever else is generated beside it. (Its logits may still differ in the last
    bits with the shape of the batch.)
    limits: the most tokens of each answer, where they are not all sampling.max_tokens.
    on_token: called with the prompt's index and each token when it is drawn.
    stops: strings that end an answer, wherever in its tokens they begin and end; they need `decode`.
    cancel: asked before each token of a prompt, by its index; what was drawn until then is kept.

    Nothing has a gradient, and nothing that stays behind keeps the model from being trained next.
    """
    if not prompts:
        return []
    _check_model(model)
    check_stops(stops, decode)
    run = Run(
        model,
        prompts,
        sampling,
        frozenset(stop_ids),
        batch,
        keys=content_keys(prompts) if keys is None else keys,
        limits=_limits(model, prompts, limits or [sampling.max_tokens] * len(prompts)),
        stops=stops,
        decode=decode,
        on_token=on_token,
        cancel=cancel,
    )
    for _ in _without_gradient(run.steps()):
        pass
    return run.done


def stream(
    model: CausalLM, prompt: list[int], sampling: Sampling, stop_ids: Iterable[int] = ()
) -> Iterator[int]:
    """The tokens of one answer as they are drawn, the stop token included."""
    run = _one(model, prompt, sampling, stop_ids)
    for _ in _without_gradient(run.steps()):
        yield run.done[0].tokens[-1]


def stream_text(
    model: CausalLM,
    prompt: list[int],
    sampling: Sampling,
    stop_ids: Iterable[int] = (),
    *,
    decode: Decode,
    stops: Sequence[str] = (),
    cancel: Callable[[int], bool] | None = None,
) -> Iterator[str]:
    """The text of one answer as it is drawn, in pieces that together are Generation.text.

    None holds a part of a character or of a stop string: what may become one is held back.
    """
    check_stops(stops, decode)
    run = _one(model, prompt, sampling, stop_ids, stops=stops, decode=decode, cancel=cancel)
    given, text = 0, run.texts[0]
    for _ in _without_gradient(run.steps()):
        if text.ready > given:
            yield text.text[given : text.ready]
            given = text.ready
    if len(text.text) > given:
        yield text.text[given:]


def _one(model, prompt, sampling, stop_ids, **others) -> Run:
    _check_model(model)
    keys, limits = content_keys([prompt]), _limits(model, [prompt], [sampling.max_tokens])
    return Run(
        model, [prompt], sampling, frozenset(stop_ids), 1, keys=keys, limits=limits, **others
    )


_END = object()


def _without_gradient(steps: Iterator[None]) -> Iterator[None]:
    """The steps without gradient, but not what their reader does between them."""
    while True:
        with torch.no_grad():
            if next(steps, _END) is _END:
                return
        yield


def content_keys(prompts: Sequence[list[int]]) -> list[int]:
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


def _check_model(model: CausalLM) -> None:
    """Refuses a model whose answers would hang, or would be drawn by chance that no seed names."""
    if any(hasattr(weight, "to_local") for weight in model.parameters()):
        raise MachineError(
            "the model's weights are divided among processes, whose answers end at unequal times",
            wanted="a model that is whole in this process",
            do="draw inside of trainee.sampling(), which gathers it",
        )
    if any(isinstance(each, nn.Dropout) and each.training and each.p for each in model.modules()):
        raise DataError(
            "the model is in training mode, and its dropout would change the answers",
            do="call model.eval() first",
        )


def check_stops(stops: Sequence[str], decode: Decode | None) -> None:
    if isinstance(stops, str) or "" in stops:
        raise DataError("stops are several strings, none of them empty", got=repr(stops))
    if stops and decode is None:
        raise DataError(
            "stop strings are looked for in the text of an answer",
            wanted="decode, from ids to text",
            do="give the tokenizer's decode",
        )


def _limits(model: CausalLM, prompts: Sequence[list[int]], wanted: Sequence[int]) -> list[int]:
    """How many tokens each prompt may be answered with: as many as wanted, if the context has room."""
    return [
        _limit(model, index, prompt, most)
        for index, (prompt, most) in enumerate(zip(prompts, wanted, strict=True))
    ]


def _limit(model: CausalLM, index: int, prompt: list[int], most: int) -> int:
    if not prompt:
        raise DataError("a prompt is empty", where=f"prompt {index}", wanted="at least one token")
    if most < 1:
        raise DataError("an answer has no room for a token", where=f"prompt {index}", got=most)
    if min(prompt) < 0 or max(prompt) >= len(model.head):
        raise DataError(
            "a prompt has a token that the model does not know",
            where=f"prompt {index}",
            wanted=f"0 to {len(model.head) - 1}",
            got=max(prompt) if min(prompt) >= 0 else min(prompt),
            do="encode it by the model's own tokenizer",
        )
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
