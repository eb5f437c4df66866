"""Needles in a haystack: what a model still finds, by the length of the text and the depth of the fact.

One row of the grid, always of exactly `length` tokens:

    [opening token] haystack ... \\n statement \\n ... haystack \\n question answer

The haystack is running text of the language, from another place for every needle, and begins again
where it ends. The statement is put at the border between two words that lies nearest to the depth.
Nothing is ever shortened but the haystack.

The answer is read, not written (teacher forcing): a needle is found where each token of the answer is
the most probable one, which is what greedy writing would have given. A choice is right where the
answer is more probable than each wrong number (tasks/needle.py) at the first token in which they
differ; it shows a beginning where nothing is found yet (chance: 1/4).

Shapes: B rows, T time, A tokens of an answer, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.eval.likelihood import TOKENS_AT_ONCE
from endonym.model.checkpoint import CausalLM
from endonym.tasks.needle import Needle, NeedleConfig, needles
from endonym.tokenizer.folder import Tokenizer

SPREAD = 2_654_435_761
"""Places in the haystack are this far apart, modulo its length: Knuth's multiplicative hashing."""


@dataclass(frozen=True)
class Cell:
    """One length and depth. found: share of needles whose whole answer is the most probable; tokens:
    share of the answers' tokens that are; chosen: share of right choices; n: needles."""

    length: int
    depth: float
    found: float
    tokens: float
    chosen: float
    n: int


@dataclass(frozen=True)
class _Row:
    """Tokens up to the last but one of the answer; answer: its tokens; first: where the wrong ones
    differ from it; others: their tokens there."""

    tokens: list[int]
    answer: list[int]
    first: int
    others: list[int]


def needle_grid(
    model: CausalLM,
    tokenizer: Tokenizer,
    haystack: Sequence[str],
    config: NeedleConfig,
    context: Context,
    *,
    title: str = "needles",
) -> list[Cell]:
    """A cell for every length and depth, in the order of the settings; the same for the same arguments.

    haystack: texts of the language. RecipeError where a length is beyond the model's context, or
    leaves no room for the haystack; DataError for a haystack without a token.
    """
    limit = longest(model.config)
    if max(config.lengths) > limit:
        raise RecipeError(
            "a needle cannot be looked for beyond the model's context",
            where="lengths",
            wanted=f"at most {limit} tokens",
            got=max(config.lengths),
            do="extend the context first (stage operate, context = { length = ... })",
        )
    ids = tokenizer.encode("\n".join(haystack), literal=True)
    if not ids:
        raise DataError("there is no haystack", wanted="texts that are not empty")
    hidden = needles(
        config.language, "test", amount=config.amount, seed=config.seed, digits=config.digits
    )
    cells, total = [], sum(config.lengths) * len(config.depths) * config.amount
    with context.console.bar(title, total, "token") as bar:
        for length in config.lengths:
            for depth in config.depths:
                rows = [
                    _row(tokenizer, ids, needle, length, depth, number)
                    for number, needle in enumerate(hidden)
                ]
                cells.append(_cell(model, rows, length, depth, context))
                bar.advance(length * len(rows))
    return cells


def longest(config) -> float:
    """The longest text that a model's configuration allows: its context, stretched where the rotation
    is stretched from it on ("dynamic"); infinite where it names none (a foreign model's may not)."""
    if getattr(config, "max_position_embeddings", None) is None:
        return math.inf
    scaling = getattr(config, "rope_scaling", None)
    dynamic = getattr(scaling, "type", None) == "dynamic"
    factor = (scaling.factor or 1.0) if dynamic else 1.0
    return round(config.max_position_embeddings * factor)


def figures(cells: Sequence[Cell]) -> dict[str, float]:
    """needle_min (the worst cell), needle_mean, needle_<length> (mean over depths): shares found;
    needle_tokens, needle_choice: means over all cells."""
    found = {
        "needle_min": min(cell.found for cell in cells),
        "needle_mean": _mean([cell.found for cell in cells]),
    }
    for length in dict.fromkeys(cell.length for cell in cells):
        found[f"needle_{length}"] = _mean([c.found for c in cells if c.length == length])
    found["needle_tokens"] = _mean([cell.tokens for cell in cells])
    found["needle_choice"] = _mean([cell.chosen for cell in cells])
    return found


def _row(
    tokenizer: Tokenizer,
    haystack: list[int],
    needle: Needle,
    length: int,
    depth: float,
    number: int,
) -> _Row:
    opening = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    statement = tokenizer.encode(f"\n{needle.statement}\n", literal=True)
    question, answer, others = _asked(tokenizer, needle)
    room = length - len(opening) - len(statement) - len(question) - len(answer)
    if room < 1:
        raise RecipeError(
            "a row of this length has no room for a haystack",
            where="lengths",
            wanted=f"more than {length - room} tokens",
            got=length,
        )
    begin = number * SPREAD % len(haystack)
    text = [haystack[(begin + i) % len(haystack)] for i in range(room)]
    place = _border(tokenizer, text, round(depth * room))
    tokens = [*opening, *text[:place], *statement, *text[place:], *question, *answer]
    assert len(tokens) == length
    first, other = _difference(answer, others, needle)
    return _Row(tokens[:-1], answer, first, other)


def _asked(tokenizer: Tokenizer, needle: Needle) -> tuple[list[int], list[int], list[list[int]]]:
    """Tokens of the question, of the answer and of the wrong ones after it: encoded in one piece where
    the question's tokens come out the same, else apart (as eval/likelihood does)."""
    asked = f"\n{needle.question}"
    head = tokenizer.encode(asked, literal=True)
    tails = []
    for answer in (needle.answer, *needle.others):
        whole = tokenizer.encode(asked + answer, literal=True)
        tails.append(whole[len(head) :] if whole[: len(head)] == head else [])
    if not all(tails):
        tails = [
            tokenizer.encode(answer, literal=True) for answer in (needle.answer, *needle.others)
        ]
    return head, tails[0], tails[1:]


def _difference(
    answer: list[int], others: list[list[int]], needle: Needle
) -> tuple[int, list[int]]:
    """The first place where a wrong answer differs, and what each has there. The first digits differ,
    so it is the same place for all, unless a token holds the end of one and not of another."""
    for place, token in enumerate(answer):
        there = [other[place] for other in others if place < len(other)]
        if len(there) == len(others) and token not in there:
            return place, there
    raise DataError(
        "the tokenizer gives two numbers the same tokens", where=needle.answer, got=needle.others
    )


def _border(tokenizer: Tokenizer, ids: list[int], wanted: int) -> int:
    """The place nearest to `wanted` where a token begins with space or follows one; the ends count."""
    for distance in range(len(ids) + 1):
        for place in (wanted - distance, wanted + distance):
            if place in (0, len(ids)):
                return place
            if 0 < place < len(ids):
                before = tokenizer.decode(ids[place - 1 : place])
                both = tokenizer.decode(ids[place - 1 : place + 1])
                if before[-1:].isspace() or both[len(before) :][:1].isspace():
                    return place
    raise AssertionError("a text has ends")


def _cell(model: CausalLM, rows: list[_Row], length: int, depth: float, context: Context) -> Cell:
    at_once = context.rows_per_device or max(1, TOKENS_AT_ONCE // length)
    device = model.head.device
    exact, right, count, chosen = 0, 0, 0, 0
    with torch.no_grad():  # not inference_mode: its tensors cannot be gathered again under FSDP
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            tokens = torch.tensor([row.tokens for row in part], device=device)
            positions = torch.arange(length - 1, device=device).expand(len(part), -1)
            states = model(tokens, positions, torch.ones_like(tokens))
            answer = max(len(row.answer) for row in part)
            logits = model.logits(states[:, -answer:]).float().cpu()  # [B, A, V]
            for row, of in zip(part, logits):
                mine = of[answer - len(row.answer) :]
                hits = (mine.argmax(-1) == torch.tensor(row.answer)).tolist()
                exact, right, count = exact + all(hits), right + sum(hits), count + len(hits)
                here = mine[row.first]
                chosen += bool(here[row.answer[row.first]] > here[row.others].max())
    return Cell(length, depth, exact / len(rows), right / count, chosen / len(rows), len(rows))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
