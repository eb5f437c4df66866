"""Where a tokenizer may never merge: split patterns, and a script's marks joined to its letters.

The usual patterns take words as \\p{L}+. In Thai, Lao, Khmer, Burmese and the Indic scripts vowel
and tone signs are marks (\\p{M}), so those patterns cut inside every syllable: 7 bytes a token
where letters with marks give 12 (same Thai corpus, same vocabulary size).
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from endonym.core.errors import DataError

LONGEST_RUN = 64
"""Letters (each with its marks) of one pre-token. Scripts without spaces write whole sentences in
one run; unbounded runs make training quadratic. A cut falls between letters, never before a mark."""

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What a ByteLevel pre-tokenizer with use_regex splits by (GPT-2, phi-2, RoBERTa)."""

Ranges = Sequence[tuple[int, int]]


_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)(?![\p{L}\p{M}])"
_REST = r"|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

PHRASE = 16
"""Words of one loose pre-token. It bounds the work of encoding and of training; every seventeenth word
cannot join the one before it."""


def words(longest: int = LONGEST_RUN) -> str:
    """Our split pattern, for tokenizers made from nothing.

    letters with their marks, after at most one other character (a space, an opening quote);
    digits one by one, so that numbers are written alike wherever they stand;
    punctuation with the line ends that follow it; line ends; white space, whose last space goes to
    the word after it (so indentation stays in one piece).
    """
    return rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{M}}\p{{N}}]?{_run(longest)}{_REST}"


def phrases(longest: int = LONGEST_RUN, words: int = PHRASE) -> str:
    """The loose pattern of superwords: words() with up to `words` words in one piece.

    Words, each with its English suffix, join over single spaces. Digits, punctuation, line ends and
    longer white space part as in words(), so each piece is one or several pieces of words() exactly.
    """
    word = rf"{_run(longest)}(?:{_SUFFIX})*"
    several = rf"{word}(?: {word}){{0,{words - 1}}}"
    return rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{M}}\p{{N}}]?{several}{_REST}"


def _run(longest: int) -> str:
    return rf"(?:[\p{{L}}\p{{M}}]\p{{M}}*){{1,{longest}}}"


def marks(script: Ranges) -> str:
    """The combining marks (Unicode category M) among code point ranges such as [(0x0E00, 0x0E7F)]."""
    codes = (code for low, high in script for code in range(low, high + 1))
    return "".join(chr(code) for code in codes if unicodedata.category(chr(code))[0] == "M")


def with_marks(pattern: str, script_marks: str) -> str:
    """The pattern in which these marks, and no others, count as letters.

    Every \\p{L} gets them beside it, inside a character class or as a new one. Text without these
    marks is split as before, so its ids do not change. A pattern that joins all marks to letters
    already (it names \\p{M}) is given back as it is.
    """
    if not script_marks or r"\p{M}" in pattern:
        return pattern
    if r"\p{L}" not in pattern:
        raise DataError(
            "a split pattern of an unknown kind",
            wanted=r"a pattern with \p{L} for letters, as GPT-2's, GPT-4's and Qwen's",
            got=pattern,
        )
    extra, out, depth, i = _as_class(script_marks), [], 0, 0
    while i < len(pattern):
        if pattern.startswith(r"\p{L}", i):
            out.append(r"\p{L}" + extra if depth else rf"[\p{{L}}{extra}]")
            i += len(r"\p{L}")
        elif pattern[i] == "\\":
            out.append(pattern[i : i + 2])
            i += 2
        else:
            depth += {"[": 1, "]": -1}.get(pattern[i], 0)
            out.append(pattern[i])
            i += 1
    return "".join(out)


def _as_class(letters: str) -> str:
    """Characters as the inside of a character class: single ones and ranges."""
    codes = sorted(set(map(ord, letters)))
    runs: list[list[int]] = []
    for code in codes:
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(chr(a) if a == b else f"{chr(a)}-{chr(b)}" for a, b in runs)


def join_marks(pre_tokenizer: Any, script_marks: str) -> Any:
    """A tokenizer.json pre_tokenizer whose split keeps these marks with their letters.

    ByteLevel's built-in GPT-2 pattern becomes an explicit Split with the same pattern patched.
    A pre-tokenizer that splits by no pattern (SentencePiece style) is given back as it is.
    """
    if pre_tokenizer is None or not script_marks:
        return pre_tokenizer
    kind = pre_tokenizer["type"]
    if kind == "Sequence":
        parts = [join_marks(part, script_marks) for part in pre_tokenizer["pretokenizers"]]
        return {"type": "Sequence", "pretokenizers": list(_flat(parts))}
    if kind == "Split" and "Regex" in pre_tokenizer["pattern"]:
        pattern = pre_tokenizer["pattern"]["Regex"]
        if r"\p{L}" not in pattern:  # a split by digits or punctuation alone
            return pre_tokenizer
        return pre_tokenizer | {"pattern": {"Regex": with_marks(pattern, script_marks)}}
    if kind == "ByteLevel" and pre_tokenizer.get("use_regex", True):
        if pre_tokenizer["add_prefix_space"]:
            raise DataError(
                "marks cannot be joined where ByteLevel puts a space before the text",
                wanted="add_prefix_space false",
                do="choose another base; RoBERTa's kind cannot be extended for a script with marks",
            )
        split = {
            "type": "Split",
            "pattern": {"Regex": with_marks(GPT2, script_marks)},
            "behavior": "Isolated",
            "invert": False,
        }
        return {"type": "Sequence", "pretokenizers": [split, pre_tokenizer | {"use_regex": False}]}
    return pre_tokenizer


def _flat(parts: Iterable[dict]) -> Iterator[dict]:
    for part in parts:
        yield from part["pretokenizers"] if part["type"] == "Sequence" else [part]


def is_letter(character: str) -> bool:
    """Whether a character is a letter or a mark, \\p{L} or \\p{M}."""
    return unicodedata.category(character)[0] in "LM"
