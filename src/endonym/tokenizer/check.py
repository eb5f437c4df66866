"""Whether a tokenizer.json says one thing: every id one token, every merge possible, none twice.

The tokenizers library loads most broken files without a word: of two merges with the same parts the
later one counts, of two tokens with one id one is lost, an added token quietly gets another id than
the file says. Text then encodes otherwise than in the tool that wrote the file.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from tokenizers import models

from endonym.core.errors import DataError


def check(state: dict[str, Any], where: object = None) -> None:
    """Raises DataError for a tokenizer.json (parsed) that is broken; the message names place and content.

    ids:     two tokens with one id; an id that is no whole number; an id below the model's highest
             with no token (ids between the model's tokens and the added ones may be free: cl100k
             and o200k leave some)
    merges:  not two parts; a part or a result that is no token; the same two parts twice; a result
             that cannot be reached

    A result counts as unreachable if the model, given the result's own letters, does not arrive at
    it by any of its merges: then no text does (see convert.py). Single merges that are never met
    while their result is reached by others are no fault: converters write every split of a piece.
    Under ignore_merges (Llama 3) a whole pre-token is looked up first, so nothing is unreachable.
    """
    model = state.get("model")
    if not isinstance(model, dict) or not model.get("vocab"):
        raise DataError("a tokenizer without a vocabulary", where=where, wanted="model.vocab")
    if isinstance(model["vocab"], list):  # unigram: the place in the list is the id
        _no_twins((row[0] for row in model["vocab"]), where)
        vocabulary = {row[0]: number for number, row in enumerate(model["vocab"])}
    else:
        vocabulary = model["vocab"]
    _check_ids(vocabulary, state.get("added_tokens") or [], where)
    if model.get("merges"):
        _check_merges(vocabulary, model, where)


def _no_twins(pieces: Iterable[str], where: object) -> None:
    seen: dict[str, int] = {}
    for number, piece in enumerate(pieces):
        if piece in seen:
            place = _at(where, f"ids {seen[piece]} and {number}")
            raise DataError("two pieces are the same", where=place, got=repr(piece))
        seen[piece] = number


def _check_ids(vocabulary: dict[str, int], added: list[dict], where: object) -> None:
    owners: dict[int, str] = {}
    added_ids = {token["content"]: token["id"] for token in added}
    for token, number in (*vocabulary.items(), *added_ids.items()):
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise DataError(
                "an id is no whole number", where=_at(where, f"token {token!r}"), got=repr(number)
            )
        other = owners.setdefault(number, token)
        if other != token:
            raise DataError(
                "two tokens have one id",
                where=_at(where, f"id {number}"),
                got=f"{other!r} and {token!r}",
            )
    for token, number in added_ids.items():
        if vocabulary.get(token, number) != number:
            raise DataError(
                "an added token has two ids",
                where=_at(where, f"token {token!r}"),
                got=f"{vocabulary[token]} in the vocabulary, {number} among the added tokens",
            )
    highest = max((n for t, n in vocabulary.items() if t not in added_ids), default=-1)
    absent = [number for number in range(highest) if number not in owners]
    if absent:
        raise DataError(
            f"{len(absent)} ids have no token",
            where=where,
            wanted=f"every id from 0 to {highest}",
            got=f"the first without one is {absent[0]}",
        )


def _check_merges(vocabulary: dict[str, int], model: dict, where: object) -> None:
    joined = model.get("continuing_subword_prefix") or ""
    places: dict[tuple[str, str], int] = {}
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    for place, pair in enumerate(pairs):
        if len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise DataError(
                "a merge does not have two parts",
                where=_at(where, f"merge {place}"),
                got=repr(model["merges"][place]),
            )
        left, right = pair
        for token in (left, right, left + right.removeprefix(joined)):
            if token not in vocabulary:
                part = "part" if token in pair else "result"
                raise DataError(
                    f"a merge has a {part} that is no token",
                    where=_at(where, f"merge {place}: {left!r} + {right!r}"),
                    got=repr(token),
                )
        if pair in places:
            raise DataError(
                "a merge stands twice",
                where=_at(where, f"merges {places[pair]} and {place}"),
                got=f"{left!r} + {right!r}",
                do="remove the second; the library would take its rank and forget the first's",
            )
        places[pair] = place
    if model.get("ignore_merges") or joined or model.get("end_of_word_suffix"):
        return
    dead = list(islice(_unreachable(vocabulary, places, model), 4))
    if dead:
        left, right = dead[0]
        raise DataError(
            "a merge can never be made",
            where=_at(where, f"merge {places[dead[0]]}"),
            wanted=f"merges that lead from single letters to {left + right!r}",
            got=f"{left!r} + {right!r}, and no merge makes its parts from letters in this order"
            + (f"; {len(dead) - 1} or more others" if len(dead) > 1 else ""),
        )


def _unreachable(
    vocabulary: dict[str, int], places: dict[tuple[str, str], int], model: dict
) -> Iterable[tuple[str, str]]:
    """The first merge of each result at which its own letters do not arrive."""
    unknown = model.get("unk_token")
    alone = models.BPE(vocab=vocabulary, merges=list(places), unk_token=unknown, fuse_unk=True)
    first: dict[str, tuple[str, str]] = {}
    for pair in places:
        first.setdefault(pair[0] + pair[1], pair)
    for result, pair in first.items():
        if len(alone.tokenize(result)) != 1:
            yield pair


def _at(where: object, place: str) -> str:
    return f"{where}: {place}" if where else place
