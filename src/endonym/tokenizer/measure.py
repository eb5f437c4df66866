"""What a tokenizer costs a language: tokens per character, bytes per token, and the premium.

A model is paid for, waits and forgets by the token. A tokenizer that has seen little Thai writes a
Thai sentence in four times the tokens of its English translation: four times the price, a quarter
of the context. All ratios here are corpus ratios (sum over sum), not means of a text's ratios.

Characters are Unicode code points, as JAI-1 counts them (arXiv 2510.08620, table 1): a Thai vowel or
tone mark is one. Counted as graphemes the figures would be a third higher.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from endonym.core.errors import DataError
from endonym.tokenizer.folder import Tokenizer
from endonym.tokenizer.units import Units

BATCH = 1 << 19
"""Characters encoded at a time, on all cores: the encodings of more are never held."""
LONGEST = 1 << 17
"""Characters of a text that are encoded as one; a longer text is cut at a line's end before that."""


@dataclass(frozen=True)
class Size:
    """How much text: counted once, whatever the number of tokenizers. words: None if not counted."""

    texts: int
    characters: int
    bytes: int
    words: int | None = None


@dataclass(frozen=True)
class Measure:
    """One tokenizer on one corpus.

    vocab_size:    rows of the embedding (the highest id plus one)
    texts, characters (code points), bytes (UTF-8), words (None where none are counted): the corpus
    tokens:        of the texts alone, no token added, control strings in them taken as plain text
    uncovered:     characters that no single token covers: written byte by byte, cut in the middle of
                   their bytes by a merge's border, or not at all (<unk>)
    """

    vocab_size: int
    texts: int
    characters: int
    bytes: int
    words: int | None
    tokens: int
    uncovered: int

    @property
    def tokens_per_character(self) -> float:
        """JAI-1's TPC."""
        return self.tokens / self.characters

    @property
    def bytes_per_token(self) -> float:
        """K-EXAONE's and Solar Open's measure."""
        return self.bytes / self.tokens

    @property
    def tokens_per_word(self) -> float | None:
        """Fertility."""
        return self.tokens / self.words if self.words else None

    @property
    def uncovered_share(self) -> float:
        return self.uncovered / self.characters

    def to_dict(self) -> dict[str, Any]:
        ratios = ("tokens_per_character", "bytes_per_token", "tokens_per_word", "uncovered_share")
        return asdict(self) | {name: getattr(self, name) for name in ratios}


@dataclass(frozen=True)
class Premium:
    """What a language pays for the same content, against the base language.

    tokens:  of the language's side of the parallel text
    cost:    tokens over the base's tokens: price, waiting time and memory rise by it
    context: 1 / cost: how much of what the base language fits into a context window fits
    """

    tokens: int
    cost: float
    context: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def size(texts: Iterable[str], language: str = "") -> Size:
    """The size of a corpus; words by the engine of the language's pack, if it has one."""
    from endonym.lang.pack import pack
    from endonym.lang.segment import words

    counted = bool(language) and pack(language).count.words != "none"
    num_texts = num_characters = num_bytes = num_words = 0
    for text in texts:
        num_texts += 1
        num_characters += len(text)
        num_bytes += len(text.encode())
        num_words += len(words(text, language)) if counted else 0
    return Size(num_texts, num_characters, num_bytes, num_words if counted else None)


def measure(
    tokenizer: Tokenizer, texts: Sequence[str], language: str = "", *, counted: Size | None = None
) -> Measure:
    """A tokenizer on texts of one language.

    language: whose words are counted ("" counts none); counted: size(texts, language), if known.
    Raises DataError where there is no character to measure.
    """
    counted = counted or size(texts, language)
    if not counted.characters:
        raise DataError("there is no text to measure", wanted="at least one character")
    cost = _Costs(tokenizer)
    tokens = uncovered = 0
    for batch in _batches(texts):
        here, lost = cost.of(batch)
        tokens += here
        uncovered += lost
    return Measure(
        tokenizer.vocab_size,
        counted.texts,
        counted.characters,
        counted.bytes,
        counted.words,
        tokens,
        uncovered,
    )


def premium(
    tokenizer: Tokenizer, parallel: Mapping[str, Sequence[str]], base: str = "en"
) -> dict[str, Premium]:
    """What each language of a parallel corpus pays; the base itself pays 1.

    parallel: language -> its sentences, the same number and order in each (FLORES, PUD).
    """
    lengths = {language: len(texts) for language, texts in parallel.items()}
    if base not in lengths:
        raise DataError(
            f"the parallel text has no {base!r} to compare with", got=", ".join(lengths) or "none"
        )
    if len(set(lengths.values())) != 1 or not any(map(any, parallel.values())):
        raise DataError(
            "the sides of the parallel text do not match",
            wanted="the same number of sentences in each language, not none",
            got=", ".join(f"{language} {number}" for language, number in lengths.items()),
        )
    cost = _Costs(tokenizer)
    tokens = {
        language: sum(cost.of(batch)[0] for batch in _batches(texts))
        for language, texts in parallel.items()
    }
    return {
        language: Premium(number, number / tokens[base], tokens[base] / number)
        for language, number in tokens.items()
    }


class _Costs:
    """Tokens of texts, and characters that no token covers, for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
        units = Units(byte_fallback="<0x00>" in vocabulary)
        in_bytes = units.byte_fallback or "ByteLevel" in str(tokenizer.backend.pre_tokenizer)
        # A character that tokens divide begins in exactly one token, and that token ends inside it.
        self.opens = np.zeros(tokenizer.vocab_size, dtype=bool)
        for token, number in vocabulary.items() if in_bytes else ():
            self.opens[number] = _ends_inside(units.raw(token))
        unknown = getattr(tokenizer.backend.model, "unk_token", None)
        unknown = unknown if isinstance(unknown, str) else tokenizer.named.get("unk_token")
        self.unknown = None if in_bytes else vocabulary.get(unknown or "<unk>")

    def of(self, texts: list[str]) -> tuple[int, int]:
        """(tokens, characters that no single token covers) of a batch."""
        if self.unknown is not None:
            return self._with_unknown(texts)
        tokens = uncovered = 0
        for ids in self.tokenizer.encode_batch(texts, literal=True):
            tokens += len(ids)
            uncovered += int(self.opens[np.fromiter(ids, np.int64, len(ids))].sum())
        return tokens, uncovered

    def _with_unknown(self, texts: list[str]) -> tuple[int, int]:
        """For vocabularies that cannot write everything: <unk> covers none of its characters."""
        tokens = lost = 0
        literal = self.tokenizer.control.blind[0]
        for found in literal.encode_batch(texts, add_special_tokens=False):
            tokens += len(found.ids)
            for at, number in enumerate(found.ids):
                if number == self.unknown:
                    start, end = found.offsets[at]
                    lost += end - start
        return tokens, lost


def _ends_inside(raw: bytes) -> bool:
    """Whether these bytes end with the beginning of a UTF-8 character that is not whole."""
    for back, byte in enumerate(reversed(raw[-3:]), start=1):
        if byte & 0xC0 == 0x80:
            continue
        width = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        return width > back
    return False


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch, weight = [], 0
    for text in texts:
        for piece in _pieces(text):
            batch.append(piece)
            weight += len(piece)
            if weight >= BATCH:
                yield batch
                batch, weight = [], 0
    if batch:
        yield batch


def _pieces(text: str) -> Iterator[str]:
    """A text whole, or a very long one in pieces of at most LONGEST that end with a line if one does.

    A cut can change the count by a token or two.
    """
    start = 0
    while len(text) - start > LONGEST:
        stop = text.rfind("\n", start, start + LONGEST) + 1
        stop = stop if stop > start else start + LONGEST
        yield text[start:stop]
        start = stop
    yield text[start:]
