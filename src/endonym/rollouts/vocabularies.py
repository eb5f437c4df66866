"""Two vocabularies side by side: which id of the teacher's says what an id of the student's says.

    same(student, teacher)    one tokenizer: it encodes every text alike, whatever the ids are called
    shared(student, teacher)  two tokenizers: the strings that both have a token for

Padding rows of an embedding have no name and stand in neither.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from endonym.core.errors import DataError, RecipeError
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.units import SPACE, byte_letters


@dataclass(frozen=True)
class Names:
    """The tokens that both sides have: the n-th is id student[n] here and teacher[n] there, [C] each."""

    student: np.ndarray
    teacher: np.ndarray

    def within(self, student_rows: int, teacher_rows: int) -> "Names":
        """Those of them that both embeddings have a row for."""
        has = (self.student < student_rows) & (self.teacher < teacher_rows)
        return Names(self.student[has], self.teacher[has])

    def table(self, rows: int) -> np.ndarray:
        """The teacher's id of each of `rows` student's ids, -1 where it has none."""
        return _table(self.student, self.teacher, rows)

    def back(self, rows: int) -> np.ndarray:
        """The student's id of each of `rows` teacher's ids, -1 where it has none."""
        return _table(self.teacher, self.student, rows)


def _table(ids: np.ndarray, values: np.ndarray, rows: int) -> np.ndarray:
    found = np.full(rows, -1, np.int64)
    found[ids] = values
    return found


def same(student: Tokenizer, teacher: Tokenizer) -> Names:
    """The names of two tokenizers that encode every text alike: normalizer, pre-tokenizer, merges and
    the strings of the model are the same. Ids may be dealt out otherwise, and each may have control
    tokens of its own. RecipeError names the first differences of two that are not."""
    if student.identity != teacher.identity and (told := differences(student, teacher)):
        raise RecipeError(
            "student and teacher have different tokenizers, so their distributions are over different things",
            where="teacher",
            wanted="one tokenizer (ids and padding may differ)",
            got="; ".join(told),
            do='take a teacher of the same family, or set alignment = "spans", which compares the two '
            "where their texts have a boundary in common",
        )
    ours, theirs = (one.backend.get_vocab(with_added_tokens=True) for one in (student, teacher))
    pairs = sorted((number, theirs[text]) for text, number in ours.items() if text in theirs)
    return Names(*np.array(pairs, np.int64).T)


def differences(student: Tokenizer, teacher: Tokenizer) -> list[str]:
    """In which of their parts that decide how a text is cut two tokenizers differ, a few words each."""
    ours, theirs = (json.loads(one.backend.to_str()) for one in (student, teacher))
    told = []
    for part in ("normalizer", "pre_tokenizer"):
        if ours[part] != theirs[part]:
            told.append(f"another {part}: {_short(ours[part])} and {_short(theirs[part])}")
    kinds = [state["model"].get("type") for state in (ours, theirs)]
    if kinds[0] != kinds[1]:
        return [*told, f"another model: {kinds[0]} and {kinds[1]}"]
    mine, other = _strings(ours), _strings(theirs)
    if mine != other:
        only = [sorted(mine - other)[:3], sorted(other - mine)[:3]]
        told.append(
            f"{len(mine)} and {len(other)} strings, only the student has {only[0]}, "
            f"only the teacher {only[1]}"
        )
    merges = [[tuple(_pair(m)) for m in s["model"].get("merges") or []] for s in (ours, theirs)]
    at = next((n for n, (a, b) in enumerate(zip(*merges)) if a != b), min(map(len, merges)))
    if merges[0] != merges[1]:
        shown = [each[at] if at < len(each) else "none" for each in merges]
        told.append(f"merge {at} is {shown[0]} here and {shown[1]} there")
    scores = [state["model"]["vocab"] for state in (ours, theirs)]
    if not told and isinstance(scores[0], list) and _sorted(scores[0]) != _sorted(scores[1]):
        told.append("other scores of the pieces")  # of a Unigram model, where they decide as well
    return told


def _strings(state: dict[str, Any]) -> set[str]:
    vocab = state["model"]["vocab"]
    texts = {text for text, _ in vocab} if isinstance(vocab, list) else set(vocab)
    return texts - {token["content"] for token in state["added_tokens"]}


def _sorted(pieces: list[list]) -> list[tuple[str, float]]:
    return sorted(map(tuple, pieces))


def _pair(merge: Any) -> Any:
    return merge.split(" ", 1) if isinstance(merge, str) else merge


def _short(part: Any) -> str:
    text = json.dumps(part, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def shared(student: Tokenizer, teacher: Tokenizer) -> Names:
    """The tokens of two tokenizers that stand for the same bytes; control tokens by their strings, and
    those that end a turn or a document by what they end."""
    ours, theirs = markers(student), markers(teacher)
    by_text: dict[bytes, int] = {}
    for number, text in sorted(theirs.items(), reverse=True):
        by_text[text] = number  # of several the lowest
    pairs: dict[bytes, tuple[int, int]] = {}
    for number, text in sorted(ours.items()):
        if text in by_text:
            pairs.setdefault(text, (number, by_text[text]))
    return Names(*np.array(sorted(pairs.values()), np.int64).T)


_CONTROL = b"\xff"
"""Around what stands for a control token: no text in UTF-8 holds this byte."""


def markers(tokenizer: Tokenizer) -> dict[int, bytes]:
    """The bytes of every token, by id; of a control token something that no text has."""
    table = spellings(tokenizer)
    for text, number in tokenizer.backend.get_vocab(with_added_tokens=True).items():
        table.setdefault(number, _CONTROL + text.encode() + _CONTROL)
    table[tokenizer.eos_id] = _CONTROL + b"end of a document" + _CONTROL
    table[tokenizer.turn_end_id] = _CONTROL + b"end of a turn" + _CONTROL
    return table


def spellings(tokenizer: Tokenizer) -> dict[int, bytes]:
    """The bytes of each token that is not control, by id: those of a text's tokens, one after the other,
    are the text. DataError for a kind of tokenizer whose bytes are not known."""
    state = json.loads(tokenizer.backend.to_str())
    decoder = json.dumps(state["decoder"])
    control = set(tokenizer.control.ids.values())
    plain = {
        number: text
        for text, number in tokenizer.backend.get_vocab(with_added_tokens=True).items()
        if number not in control
    }
    added = {token["id"] for token in state["added_tokens"]}
    if "ByteLevel" in decoder:
        byte_of = byte_letters()[1]
        return {
            number: text.encode() if number in added else bytes(byte_of[c] for c in text)
            for number, text in plain.items()
        }
    if "ByteFallback" in decoder or SPACE in decoder:
        return {
            number: text.encode() if number in added else _fallback(text)
            for number, text in plain.items()
        }
    raise DataError(
        "the bytes of this tokenizer's tokens are not known",
        wanted="a byte-level BPE, or SentencePiece's pieces",
        got=f"decoder {_short(state['decoder'])}",
    )


def _fallback(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace(SPACE, " ").encode()
