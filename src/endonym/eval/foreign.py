"""How near a model comes to writing in another language's script, along the replies that it drew.

    F = mean over the positions t of the replies of  sum over v in foreign of p(v | prompt, reply_<t)

p is the model's own distribution at temperature 1, whatever the replies were drawn at, and the
positions are those of the drawn tokens, the stop token included. foreign: tokens in whose text stands
a letter of a script that is not the language's own; Latin is foreign to Thai here, though the rule for
keeping to a language (lang/script.py) tolerates some. Control tokens are in no script, nor are tokens
that hold only a part of a character's bytes, so of byte-level vocabularies F is a lower bound.

A reply shows one draw; F shows what a hundred more draws would show, and is above zero long before
any of them strays.

Shapes: B replies, T time, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from endonym.core.context import Context
from endonym.lang.pack import pack
from endonym.lang.script import counts, foreign_share
from endonym.model.checkpoint import CausalLM
from endonym.tokenizer.folder import Tokenizer

ROWS = 32
"""Replies read at once, unless the context says how many."""

POSITIONS = 1024
"""Distributions over the vocabulary held at once."""


def foreign_tokens(tokenizer: Tokenizer, language: str, size: int) -> Tensor:
    """Which of `size` ids are foreign to the language, bool [size]; ids without a token are not."""
    own = set(pack(language).scripts)
    known = range(min(size, tokenizer.vocab_size))
    found = [v for v in known if counts(tokenizer.decode([v])).keys() - own]  # control: no text
    is_foreign = torch.zeros(size, dtype=torch.bool)
    is_foreign[found] = True
    return is_foreign


def is_mixed(text: str, language: str) -> bool:
    """Whether a reply, without its thoughts, holds a letter of a script that is not the language's."""
    return foreign_share(text, language, latin=True) > 0


def foreign_mass(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[list[int]],
    replies: Sequence[list[int]],
    language: str,
    context: Context,
    *,
    title: str = "foreign script",
) -> list[tuple[float, int]]:
    """(sum of the foreign mass over a reply's positions, number of positions) of each reply.

    prompts, replies: ids. The figure F is the sum of the first parts over the sum of the second.
    """
    device = model.head.device
    is_foreign = foreign_tokens(tokenizer, language, model.head.shape[0]).to(device)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(replies[i]))
    rows = context.rows_per_device or ROWS
    sums = torch.zeros(len(prompts), dtype=torch.float64)
    with torch.inference_mode(), context.console.bar(title, len(order), unit="reply") as bar:
        for at in range(0, len(order), rows):
            batch = order[at : at + rows]
            whole = [prompts[i] + replies[i][:-1] for i in batch]  # the last is only predicted
            width = max(map(len, whole))
            tokens = torch.tensor([each + [0] * (width - len(each)) for each in whole])
            lengths = torch.tensor([len(each) for each in whole])
            segments = (torch.arange(width) < lengths[:, None]).long()
            hidden = model(tokens.to(device), segments=segments.to(device))
            # Of which reply, and from which position, each of its tokens was predicted
            where = [
                (row, len(prompts[i]) - 1 + t)
                for row, i in enumerate(batch)
                for t in range(len(replies[i]))
            ]
            for part in range(0, len(where), POSITIONS):
                row, t = torch.tensor(where[part : part + POSITIONS]).T
                logits = (hidden[row.to(device), t.to(device)] @ model.head.T).float()
                if model.cap is not None:
                    logits = model.cap * torch.tanh(logits / model.cap)
                mass = torch.softmax(logits, 1)[:, is_foreign].sum(1)
                sums.index_add_(0, torch.tensor(batch)[row], mass.double().cpu())
            bar.advance(len(batch))
    return [(value, len(reply)) for value, reply in zip(sums.tolist(), replies)]
