"""Which part of a BPE vocabulary stays when another language's tokens take the place of rare ones.

K-EXAONE (arXiv:2601.01739) kept the most frequent 70 % of its old tokens; how it closed the rest
under merges it does not say. Here a kept token brings along what it is merged from, so

    a text whose old tokens are all kept, and that no new merge touches, has the same ids as before

exactly: BPE undoes no merge, so all merges that made this text are merges inside its tokens, these are
still there, and at every step the same one ranks first among those left.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise

import numpy as np

from endonym.core.errors import DataError, RecipeError
from endonym.tokenizer import corpus
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.units import Units, byte_letters


def lost(old: Tokenizer, state: dict, texts: Iterable[str], share: float) -> dict[str, int]:
    """Tokens (with their ids) that are given up, if of those that can be, `share` is kept.

    What can be given up: all but bytes, <unk> and added tokens (the special ones among them). Tokens
    stay in order of their count in `texts`, each with the tokens that it is merged from; among equal
    counts the lower id goes first, which is the older merge or the better score.
    """
    if not 0 < share <= 1:
        raise RecipeError(
            "a share of the old vocabulary to keep", where="keep", wanted="0 < keep <= 1", got=share
        )
    if share == 1:
        return {}
    can_go = _free(state)
    counts = usage(old, texts)
    if not counts.any():
        raise DataError("there is no text to count old tokens in", wanted="texts in `usage`")
    order = sorted(can_go, key=lambda token: (-counts[can_go[token]], can_go[token]))
    wanted, kept = round(share * len(order)), set()
    parts = Derivations(state["model"]["merges"])
    for token in order:
        if len(kept) == wanted:
            break
        family = {each for each in parts.family(token, kept) if each in can_go}
        if len(kept) + len(family) <= wanted:
            kept |= family
    return {token: number for token, number in can_go.items() if token not in kept}


def without(state: dict, gone: dict[str, int]) -> dict:
    """A tokenizer.json without these tokens and without the merges that they take part in."""
    if not gone:
        return state
    model = state["model"]
    vocabulary = {token: n for token, n in model["vocab"].items() if token not in gone}
    merges = [
        [left, right]
        for left, right in model["merges"]
        if left in vocabulary and right in vocabulary and left + right in vocabulary
    ]
    return state | {"model": model | {"vocab": vocabulary, "merges": merges}}


def usage(tokenizer: Tokenizer, texts: Iterable[str]) -> np.ndarray:
    """[V] how often each token is used in texts, read line by line."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for batch in batches(corpus.lines(texts)):
        ids = np.fromiter(
            chain.from_iterable(tokenizer.encode_batch(batch, literal=True)), np.int64
        )
        counts += np.bincount(ids, minlength=len(counts))
    return counts


def batches(lines: Iterable[str], characters: int = 1 << 18) -> Iterator[list[str]]:
    """Lines, about so many characters at a time: what is encoded at once lies in memory at once."""
    batch, weight = [], 0
    for line in lines:
        batch.append(line)
        weight += len(line)
        if weight >= characters:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


class Derivations:
    """From a token to the two that BPE merges it from, out of the list of merges."""

    def __init__(self, merges: Iterable[tuple[str, str]]):
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(merges)}
        self._known: dict[str, tuple[str, ...]] = {}

    def parts(self, token: str) -> tuple[str, ...]:
        """(left, right); () for a single letter, and for a token that its own letters do not reach.

        The merge inside a text is the same one: while a token's letters are merged into it, nothing
        is merged across its ends.
        """
        if token not in self._known:
            symbols = list(token)
            while len(symbols) > 2:
                ranks = [self._ranks.get(pair, np.inf) for pair in pairwise(symbols)]
                best = min(ranks)
                if best == np.inf:
                    break
                at = ranks.index(best)
                symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
            reached = len(symbols) == 2 and tuple(symbols) in self._ranks
            self._known[token] = tuple(symbols) if reached else ()
        return self._known[token]

    def family(self, token: str, known: set[str]) -> set[str]:
        """The token and all that it is merged from, step by step, less what is known."""
        found, open_ends = set(), [token]
        while open_ends:
            each = open_ends.pop()
            if each not in known and each not in found:
                found.add(each)
                open_ends += self.parts(each)
        return found


def _free(state: dict) -> dict[str, int]:
    """The tokens that can be given up: text loses none of its bytes without them."""
    units, model = Units.of(state), state["model"]
    bound = {token["content"] for token in state["added_tokens"]} | {model.get("unk_token")}
    if not units.byte_fallback:
        bound |= set(byte_letters()[0].values())
    return {
        token: number
        for token, number in model["vocab"].items()
        if token not in bound and not units.is_byte(token)
    }
