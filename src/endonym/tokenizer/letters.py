"""Tokens as letters: how the stock BPE trainer learns merges of tokens instead of bytes.

The trainer starts from single characters and cannot be given merges to go on from. So every token id
is written as one character, whose meaning the trainer need not know, and a space stands wherever no
merge may go; what it learns is then read back as sequences of ids.
"""

import json
from collections.abc import Iterable

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

FIRST = 0x10000
"""Id 0. Ids up to 1,048,575 have a letter: all the code points above the basic plane."""


def written(ids: np.ndarray, ends: np.ndarray) -> str:
    """Ids as letters, [N] -> str; a space after each id whose `ends` ([N] bool) is true."""
    codes = np.insert(ids.astype(np.int64) + FIRST, np.flatnonzero(ends) + 1, ord(" "))
    return codes.astype("<u4").tobytes().decode("utf-32-le")


def merges(
    lines: Iterable[str], used: Iterable[int], room: int, min_count: int
) -> list[tuple[list[int], list[int]]]:
    """At most `room` merges over lines of letters, in order: (ids of the left, ids of the right).

    used: the ids that the lines may hold. Pairs seen less often than min_count are not merged.
    """
    alphabet = [chr(FIRST + number) for number in used]
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + room,
        min_frequency=min_count,
        special_tokens=[],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    learnt = json.loads(backend.to_str())["model"]["merges"]
    return [(_read(left), _read(right)) for left, right in learnt]


def _read(letters: str) -> list[int]:
    return [ord(letter) - FIRST for letter in letters]
