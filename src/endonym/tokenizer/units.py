"""What the tokens of a BPE vocabulary are made of, and which of them only one script can produce.

Two kinds of vocabulary are known: byte-level (GPT-2, Llama 3, Qwen: every byte has a printable
stand-in) and characters with byte fallback (SentencePiece BPE: Llama 2, Mistral, phi-3).
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from tokenizers.normalizers import Normalizer

from endonym.core.errors import DataError
from endonym.tokenizer.corpus import Segmenter
from endonym.tokenizer.pretokenize import Ranges

SPACE = "\u2581"
"""SentencePiece's mark for a space."""


@cache
def byte_letters() -> tuple[dict[int, str], dict[str, int]]:
    """The printable stand-in of each byte in byte-level vocabularies, both ways (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in letters)
    letters |= {byte: chr(0x100 + n) for n, byte in enumerate(others)}
    return letters, {letter: byte for byte, letter in letters.items()}


class Script:
    """A set of code points, and the question whether bytes can occur without them.

    ranges None stands for no restriction: everything binds, everything occurs.
    """

    def __init__(self, ranges: Ranges | None):
        self.ranges = ranges
        self._codes = {c for low, high in ranges or () for c in range(low, high + 1)}
        self._letters = set(map(chr, self._codes))

    def __contains__(self, code: int) -> bool:
        return code in self._codes

    def occurs(self, text: str) -> bool:
        return self.ranges is None or not self._letters.isdisjoint(text)

    def binds(self, raw: bytes) -> bool:
        """Whether UTF-8 text with these bytes in it must hold a character of the script.

        True for a whole character of it, and for the beginning of one where every assigned
        character with that beginning is of the script. UTF-8 lead bytes are no trailing bytes, so
        this holds wherever the token's borders fall.
        """
        if self.ranges is None:
            return True
        for place, lead in enumerate(raw):
            if lead >= 0xC0 and self._all_within(raw[place : place + _width(lead)], _width(lead)):
                return True
        return False

    def _all_within(self, beginning: bytes, width: int) -> bool:
        value = beginning[0] & (0xFF >> (width + 1))
        for byte in beginning[1:]:
            if byte & 0xC0 != 0x80:
                return False
            value = value << 6 | byte & 0x3F
        free = 6 * (width - len(beginning))
        low, high = value << free, (value + 1 << free) - 1
        low, high = max(low, (0x80, 0x800, 0x10000)[width - 2]), min(high, 0x10FFFF)
        if high - low >= 4096:  # a beginning this short is shared by many scripts
            return False
        found = [c for c in range(low, high + 1) if unicodedata.category(chr(c)) != "Cn"]
        return bool(found) and all(code in self._codes for code in found)


def _width(lead: int) -> int:
    """Bytes of the UTF-8 character that this byte begins (0xC0 and above)."""
    return 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


@dataclass(frozen=True)
class Units:
    """A vocabulary's kind: byte_fallback, or byte-level."""

    byte_fallback: bool

    @classmethod
    def of(cls, state: dict) -> "Units":
        """The kind of a tokenizer.json, or an error for what cannot be extended by merges."""
        model = state["model"]
        if model["type"] != "BPE":
            reason = {
                "Unigram": ": it has no merges but a probability for each piece, and a piece more "
                "would change how old text is cut"
            }
            raise DataError(
                "only a BPE vocabulary can be extended by merges",
                wanted="BPE",
                got=model["type"] + reason.get(model["type"], ""),
                do="choose a base with a BPE vocabulary, or train a tokenizer from nothing",
            )
        if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            raise DataError(
                "a BPE vocabulary that marks the places of its tokens in words",
                wanted="tokens that are joined as they are written",
                got="continuing_subword_prefix or end_of_word_suffix",
            )
        if model.get("byte_fallback") and "<0x00>" in model["vocab"]:
            return cls(byte_fallback=True)
        if all(letter in model["vocab"] for letter in byte_letters()[0].values()):
            return cls(byte_fallback=False)
        raise DataError(
            "a BPE vocabulary that cannot write every byte",
            wanted="byte-level, or characters with byte fallback (<0x00> to <0xFF>)",
            do="choose another base model: text outside the vocabulary would be lost",
        )

    def spell(self, text: str) -> str:
        """Text in the vocabulary's letters."""
        letters = byte_letters()[0]
        return text if self.byte_fallback else "".join(letters[byte] for byte in text.encode())

    def raw(self, token: str) -> bytes:
        """The bytes that a token stands for."""
        if not self.byte_fallback:
            codes = byte_letters()[1]
            if all(letter in codes for letter in token):
                return bytes(codes[letter] for letter in token)
        elif self.is_byte(token):
            return bytes([int(token[3:5], 16)])
        return token.encode()

    def is_byte(self, token: str) -> bool:
        """Whether a token is a fallback byte such as <0xE0>; such tokens take part in no merge."""
        return self.byte_fallback and len(token) == 6 and token.startswith("<0x")

    def tables(self, vocabulary: dict[str, int], added: list[dict], script: Script) -> "Tables":
        """Per token id what training needs: its length, whether it binds, where it may stand."""
        size = max(vocabulary.values()) + 1
        length, bound = np.zeros(size, np.int64), np.zeros(size, bool)
        alone, opens = np.zeros(size, bool), np.zeros(size, bool)
        single = self.byte_fallback and _digits_stand_alone(vocabulary)
        for token, number in vocabulary.items():
            raw = self.raw(token)
            length[number], alone[number] = len(raw), self.is_byte(token)
            alone[number] |= single and token.isnumeric()
            bound[number] = not alone[number] and script.binds(raw)
            opens[number] = self.byte_fallback and token.startswith(SPACE)
        for token in added:
            length[token["id"]], alone[token["id"]] = len(token["content"].encode()), True
        return Tables(length, bound, alone, opens)


def _digits_stand_alone(vocabulary: dict[str, int]) -> bool:
    """Whether no token of a SentencePiece vocabulary has two digits, as in Llama 2's: there is no
    pre-tokenizer that would say so."""
    return not any(
        token[-1:].isnumeric() and token[-2:].isnumeric() and len(token) > 1 for token in vocabulary
    )


@dataclass(frozen=True)
class Tables:
    """By token id: length in bytes of normalised text; whether it can only be of the script; whether
    it never merges; whether it opens a word (SentencePiece's space mark)."""

    length: np.ndarray
    bound: np.ndarray
    alone: np.ndarray
    opens: np.ndarray

    def borders(self, ids: np.ndarray, pre_token: np.ndarray) -> np.ndarray:
        """[N] bool: no merge may join token i and the one after it. The last is True."""
        left, right = ids[:-1], ids[1:]
        inner = pre_token[:-1] != pre_token[1:]
        inner |= self.alone[left] | self.alone[right] | self.opens[right]
        inner |= ~(self.bound[left] | self.bound[right])
        return np.append(inner, True)

    def word_ends(
        self,
        ids: np.ndarray,
        last: np.ndarray,
        lines: Sequence[str],
        normalizer: Normalizer | None,
        segment: Segmenter,
    ) -> np.ndarray:
        """[N] bool: a word of `segment` ends where token i ends. Tokens across a word's end stay whole.

        ids: of all lines, one after the other; last: the place of each line's last token.
        """
        space = SPACE if self.opens.any() else " "
        token_ends = np.cumsum(self.length[ids])
        word_ends, end = [], 0
        for line, goal in zip(lines, token_ends[last].tolist()):
            text, start = normalizer.normalize_str(line) if normalizer else line, end
            for word in segment(text.replace(space, " ")):
                end += len(word.replace(" ", space).encode())
                # a word that is nothing but white space belongs to the word after it, as in encoding
                if not word.isspace():
                    word_ends.append(end)
            if end != goal:
                raise DataError(
                    "words and tokens of a line differ in length",
                    where=repr(line[:60]),
                    wanted=f"{goal - start} bytes in words",
                    got=end - start,
                    do="use a segmenter that keeps every character, white space included",
                )
        is_end = np.zeros(end + 1, bool)
        is_end[word_ends] = True
        return is_end[token_ends]
