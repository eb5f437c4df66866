"""How probable a model finds given text: bits per byte of documents, scores of choices.

Bits per byte.  bits(x) = - sum_i log2 p(t_i | what stands before it),  bytes(x) = UTF-8 bytes of x,
over the text's own tokens; the end-of-document token is neither scored nor counted, since it has no
bytes. Tokenizers can be compared by it, which losses per token cannot. Three choices of ours:

- Start. A document stands as in training (data/loader.py): after the tokenizer's own opening token
  (Llama's <s>) where it has one, else first in its segment. In the second case nothing predicts its
  first token, so the lead, the fewest tokens that make whole characters, counts neither in bits nor
  in bytes. `start` may name an opening token instead; the lead is then scored too.
- Long documents. They are read in windows of `window` tokens that overlap by half, and every token
  is scored once, in the window where it has more before it: at least window / 2 tokens except at the
  document's own beginning. Disjoint windows are cheaper and charge the model for its own blindness.
- Per document. (bits, bytes) are kept apart for each, so that an interval can be drawn over documents
  (eval/intervals.py); the figure is sum of bits / sum of bytes.

Choices.  score_k = sum of log p of the tokens of choice k after the context; the answer is the
highest score (acc), or the highest score per UTF-8 byte of the choice (acc_norm, lm-eval's byte
length; its own code divides by characters, which makes Thai marks count as letters).

Shapes: B rows, T time, D width, N scored tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from endonym.core.context import Context
from endonym.core.errors import DataError
from endonym.data.pack import best_fit
from endonym.methods.nll import token_logprobs
from endonym.model.checkpoint import CausalLM
from endonym.tasks.base import Item
from endonym.tasks.choice import continuations
from endonym.tokenizer.folder import Tokenizer

WINDOW = 1024
"""Tokens of a window, where the model's context is not shorter."""

TOKENS_AT_ONCE = 8192
"""Of one forward pass, padding included, unless the context says how many rows."""


@dataclass(frozen=True)
class Bits:
    """One document: bits the model needs for it, and the UTF-8 bytes these stand for."""

    bits: float
    bytes: int


@dataclass(frozen=True)
class Choice:
    """One item. scores and bytes: by choice; joint: context and choices were encoded in one piece;
    truncated: longer than the model's context, so read in windows that overlap by half (as bits per
    byte are) and not as a whole."""

    id: str
    scores: list[float]
    bytes: list[int]
    gold: int
    joint: bool
    truncated: bool = False

    @property
    def chosen(self) -> int:
        """The most probable choice; of equal ones the first."""
        return max(range(len(self.scores)), key=lambda k: self.scores[k])

    @property
    def chosen_norm(self) -> int:
        """The choice most probable per byte."""
        return max(range(len(self.scores)), key=lambda k: self.scores[k] / self.bytes[k])

    @property
    def correct(self) -> bool:
        return self.chosen == self.gold

    @property
    def correct_norm(self) -> bool:
        return self.chosen_norm == self.gold


@dataclass(frozen=True)
class _Piece:
    """Tokens to read, and which predictions to take from them: (position, label, account)."""

    tokens: list[int]
    reads: list[tuple[int, int, int]]


def bits_per_byte(
    model: CausalLM,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    context: Context,
    *,
    window: int | None = None,
    start: int | None = None,
    title: str = "bits per byte",
) -> list[Bits]:
    """Bits and bytes of each text, in order. The figure is total(...) of them.

    An empty text, or one that is nothing but its own lead, gives (0, 0).
    """
    window = _window(model, window)
    opening = start if start is not None else tokenizer.bos_id
    pieces, counted = [], []
    for account, (text, ids) in enumerate(zip(texts, tokenizer.encode_batch(texts, literal=True))):
        lead = 0 if opening is not None else _lead(tokenizer, ids)
        skipped = len(tokenizer.decode(ids[:lead]).encode()) if lead else 0
        counted.append(len(text.encode()) - skipped if len(ids) > lead else 0)
        tokens = ids if opening is None else [opening, *ids]
        first = 1 if opening is not None else lead
        pieces += _windows(tokens, max(first, 1), window, account)
    sums = _sums(model, pieces, len(texts), window, context, title)
    return [
        Bits(-logprob / math.log(2), size) if size else Bits(0.0, 0)
        for logprob, size in zip(sums, counted)
    ]


def total(documents: Sequence[Bits]) -> float:
    """Bits per byte of all together. DataError where there are no bytes."""
    size = sum(document.bytes for document in documents)
    if not size:
        raise DataError("no byte to divide by", wanted="texts that are not empty")
    return sum(document.bits for document in documents) / size


def choice_scores(
    model: CausalLM,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    context: Context,
    *,
    title: str = "choices",
) -> list[Choice]:
    """Scores of each item's choices after its context, in order.

    An item's context is text (item.context) or, where that is empty, its messages up to the
    generation prompt. Context and choice are encoded in one piece where the context's tokens come out
    the same, which is nearly always; where a token spans the seam (in Thai, without spaces, a context
    may swallow a choice's first piece) they are encoded apart, and the item is marked joint=False.

    Choices that are read through the same tokens share one forward pass: single-token choices cost
    one for all. Only the hidden states that predict a choice meet the head.
    """
    window = getattr(model.config, "max_position_embeddings", None)
    pieces, seams, cut, account, longest = [], [], [], 0, 1
    for item in items:
        if not item.choices:
            raise DataError("an item has no choices to score", where=item.id)
        head, tails, joint = _encode_item(tokenizer, item)
        seams.append(joint)
        cut.append(window is not None and len(head) + max(map(len, tails)) > window)
        if cut[-1]:
            for k, tail in enumerate(tails):
                parts = _windows([*head, *tail], len(head), window, account + k)
                longest = max(longest, *(len(part.tokens) for part in parts))
                pieces += parts
        else:
            for tokens, reads in _shared(head, tails, account):
                longest = max(longest, len(tokens))
                pieces.append(_Piece(tokens, reads))
        account += len(item.choices)
    row = longest if window is None else min(window, max(longest, 256))
    sums = iter(_sums(model, pieces, account, row, context, title))
    return [
        Choice(
            id=item.id,
            scores=[next(sums) for _ in item.choices],
            bytes=[len(choice.encode()) for choice in item.choices],
            gold=int(item.answer),
            joint=joint,
            truncated=truncated,
        )
        for item, joint, truncated in zip(items, seams, cut)
    ]


def _encode_item(tokenizer: Tokenizer, item: Item) -> tuple[list[int], list[list[int]], bool]:
    """Ids of the context, of each choice after it, and whether all were encoded in one piece."""
    text, choices = continuations(item)
    apart = [tokenizer.encode(choice, literal=True) for choice in choices]
    if not text:
        return tokenizer.encode_prompt(item.messages), apart, True
    opening = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    head = tokenizer.encode(text, literal=True)
    tails = []
    for choice in choices:
        whole = tokenizer.encode(text + choice, literal=True)
        tails.append(whole[len(head) :] if whole[: len(head)] == head else [])
    joint = all(tails)
    return [*opening, *head], tails if joint else apart, joint


def _shared(
    head: list[int], tails: list[list[int]], account: int
) -> list[tuple[list[int], list[tuple[int, int, int]]]]:
    """Readings of head + tail for all tails; a tail read along another one's way needs none of its own.

    What is read for tail k is head + tail[:-1]. Where that begins another's reading, the predictions
    at the same positions are the same, so they are taken from there.
    """
    readings: list[tuple[list[int], list[tuple[int, int, int]]]] = []
    for k in sorted(range(len(tails)), key=lambda k: -len(tails[k])):
        tokens = [*head, *tails[k][:-1]]
        reads = [(len(head) - 1 + i, label, account + k) for i, label in enumerate(tails[k])]
        for known, others in readings:
            if known[: len(tokens)] == tokens:
                others += reads
                break
        else:
            readings.append((tokens, reads))
    return readings


def _windows(tokens: list[int], first: int, window: int, account: int) -> list[_Piece]:
    """Pieces in which tokens[first:] are each predicted once, with window / 2 tokens before it or all."""
    pieces, done = [], first
    begin = max(0, min(len(tokens) - 1 - window, first - window // 2))
    while done < len(tokens):
        end = min(begin + window, len(tokens) - 1)  # inputs; the last token is only a label
        reads = [(t - 1 - begin, tokens[t], account) for t in range(done, end + 1)]
        pieces.append(_Piece(tokens[begin:end], reads))
        done = end + 1
        begin = max(0, done - window // 2)
    return pieces


def _sums(
    model: CausalLM,
    pieces: list[_Piece],
    accounts: int,
    row_length: int,
    context: Context,
    title: str,
) -> list[float]:
    """Sum of natural log-probabilities by account, in float64, read in packed rows."""
    sums = torch.zeros(accounts, dtype=torch.float64)
    if not pieces:
        return sums.tolist()
    lengths = np.array([len(piece.tokens) for piece in pieces])
    row_length = min(row_length, int(lengths.sum()))
    packing = best_fit(lengths, max(row_length, int(lengths.max())))
    rows = context.rows_per_device or max(1, TOKENS_AT_ONCE // packing.row_length)
    device = model.head.device
    with torch.no_grad(), context.console.bar(title, int(lengths.sum()), "token") as bar:
        for start in range(0, len(packing), rows):
            inside = [packing.row(r) for r in range(start, min(start + rows, len(packing)))]
            width = max(int(lengths[row].sum()) for row in inside)
            shape = (len(inside), width)
            tokens, segments = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
            positions, reads = np.zeros(shape, np.int64), []
            for line, row in enumerate(inside):
                at = 0
                for number, index in enumerate(row.tolist(), start=1):
                    piece = pieces[index]
                    here = slice(at, at + len(piece.tokens))
                    tokens[line, here], segments[line, here] = piece.tokens, number
                    positions[line, here] = np.arange(len(piece.tokens))
                    reads += [(line, at + p, label, account) for p, label, account in piece.reads]
                    at += len(piece.tokens)
            batch = (torch.from_numpy(part).to(device) for part in (tokens, positions, segments))
            hidden = model(*batch)
            line, place, label, account = torch.tensor(reads).T
            chosen = hidden[line.to(device), place.to(device)]  # [N, D]
            found = token_logprobs(chosen, model.head, label.to(device), cap=model.cap)
            sums.index_add_(0, account, found.double().cpu())
            bar.advance(int(sum(lengths[row].sum() for row in inside)))
    return sums.tolist()


def _lead(tokenizer: Tokenizer, ids: list[int]) -> int:
    """The fewest tokens at the beginning that make whole characters; all where none do."""
    for count in range(1, len(ids)):
        if not tokenizer.decode(ids[:count]).endswith("\ufffd"):
            return count
    return len(ids)


def _window(model: CausalLM, wish: int | None) -> int:
    most = getattr(model.config, "max_position_embeddings", None) or wish or WINDOW
    if wish is not None and not 2 <= wish <= most:
        raise DataError("a window does not fit the model", wanted=f"2 to {most} tokens", got=wish)
    return wish or min(WINDOW, most)
