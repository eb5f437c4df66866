"""Answers of a model to items, each with its verdict; a journal makes a long evaluation resumable.

    items -> prompts (chat template) -> a backend (engine/backends.py) -> replies -> tasks: verdict, language

The journal, <scratch>/<name>.jsonl, begins with a line that says what is asked and how; then come
the replies, one batch of BATCH items in one write, which ends with a line "done". What follows the
last whole batch is cut off when an evaluation goes on, so a kill loses one batch at most and no item
stands twice. Batches are a function of the items alone (longest prompt first) and every item draws
its random numbers from its own content, so a run in pieces gives the replies of a run in one.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from endonym.core.context import Context
from endonym.core.errors import DataError
from endonym.engine.backends import Backend
from endonym.engine.generate import content_keys
from endonym.engine.sampler import Sampling
from endonym.eval.journal import Journal
from endonym.lang.script import in_language
from endonym.tasks.base import Item, task_for
from endonym.tokenizer.folder import Tokenizer

BATCH = 128
"""Items between two writes of the journal."""

ROWS = 32
"""Of one generation of our engine, unless the context says how many."""

TOO_LONG = "too long"


@dataclass(frozen=True)
class Reply:
    """What became of one item.

    text, tokens: the reply, and its length with the stop token
    finish:       "stop", "length" (cut off), or "too long": the prompt does not leave room for one
                  token, nothing was asked, the score is 0
    score, reason, parsed: the task's verdict
    in_language:  whether the reply keeps to the item's language; None where any will do
    ids:          the tokens as drawn, where they were asked for (with_ids)
    """

    item: str
    text: str
    score: float
    reason: str
    parsed: str | None
    tokens: int
    finish: str
    in_language: bool | None
    ids: list[int] = field(default_factory=list)


def answers(
    backend: Backend,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    sampling: Sampling,
    context: Context,
    *,
    name: str = "answers",
    title: str = "answers",
    with_ids: bool = False,
) -> list[Reply]:
    """One Reply for each item, in the items' order; those that the journal holds are not asked again.

    DataError where two items share an id, or where the tokenizer has no chat template.
    """
    if len({item.id for item in items}) != len(items):
        raise DataError("two items share an id", wanted="one id for each item")
    prompts = [tokenizer.encode_prompt(item.messages) for item in items]
    keys = content_keys(prompts)
    order = sorted(range(len(items)), key=lambda i: (-len(prompts[i]), i))
    batches = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
    journal = Journal(context.scratch / f"{name}.jsonl", _identity(items, prompts, sampling), Reply)
    replies = {reply.item: reply for reply in journal.rows}
    with journal, context.console.bar(title, len(items), unit="item") as bar:
        bar.advance(len(replies))
        for batch in batches:
            if all(items[i].id in replies for i in batch):
                continue
            asked = [i for i in batch if fits(backend, prompts[i])]
            done = backend.generate(
                [prompts[i] for i in asked],
                sampling,
                tokenizer.stop_ids,
                keys=[keys[i] for i in asked],
            )
            texts = {i: _text(tokenizer, each.tokens) for i, each in zip(asked, done)}
            counts = {i: (len(each.tokens), each.finish) for i, each in zip(asked, done)}
            new = [judge(items[i], texts.get(i), *counts.get(i, (0, TOO_LONG))) for i in batch]
            if with_ids:
                drawn = {items[i].id: each.tokens for i, each in zip(asked, done)}
                new = [replace(reply, ids=drawn.get(reply.item, [])) for reply in new]
            journal.append(new)
            replies.update({reply.item: reply for reply in new})
            bar.advance(len(batch), score=sum(r.score for r in replies.values()) / len(replies))
    return [replies[item.id] for item in items]


def judge(item: Item, text: str | None, tokens: int, finish: str) -> Reply:
    """The verdict on a reply; `text` None where the prompt was too long to be asked."""
    if text is None:
        spoken = False if item.language else None
        return Reply(item.id, "", 0.0, "prompt too long", None, 0, finish, spoken)
    verdict = task_for(item.kind).check(item, text)
    return Reply(
        item=item.id,
        text=text,
        score=float(verdict.score),
        reason=verdict.reason,
        parsed=verdict.parsed,
        tokens=tokens,
        finish=finish,
        in_language=in_language(text, item.language) if item.language else None,
    )


def _identity(items: Sequence[Item], prompts: list[list[int]], sampling: Sampling) -> str:
    """What a journal must be about to be gone on with. The model is not in it: it belongs to the
    scratch folder, as a training run's does."""
    told = [[asdict(item) for item in items], prompts, sampling.model_dump(mode="json"), BATCH]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def fits(backend: Backend, prompt: list[int]) -> bool:
    """Whether there is room for one token of an answer."""
    return backend.context is None or len(prompt) < backend.context


def _text(tokenizer: Tokenizer, tokens: list[int]) -> str:
    return tokenizer.decode(tokens).strip()
