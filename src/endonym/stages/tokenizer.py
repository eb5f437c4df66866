"""A byte-level BPE tokenizer trained from scratch on documents."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.stage import Outcome, Slot, Stage

if TYPE_CHECKING:
    from endonym.data.document import Document
    from endonym.tokenizer.folder import Tokenizer


class TokenizerConfig(Config):
    vocab_size: int = Field(ge=300)
    language: str = ""
    """Language whose words merges must not cross ("" where white space parts them)."""
    superwords_from: int | None = Field(default=None, ge=300)
    """Size at which merges begin to cross words; None for never (tokenizer/superbpe.py)."""
    parity: bool = False
    """Whether merges go to the language that pays most tokens a character (by the documents' own
    language) instead of to the most frequent pair of all."""
    reserved: list[str] = []
    """Control tokens to be kept for later, after the three of ChatML (modality spans, for example)."""


def tokenizer(
    config: TokenizerConfig, context: Context, out: Path, *, text: dict[str, Artifact]
) -> Outcome:
    """A tokenizer folder (tokenizer.json, ChatML template) out of documents."""
    from endonym.lang.segment import segmenter
    from endonym.tokenizer.corpus import equal_lengths
    from endonym.tokenizer.train import train

    texts = by_language(text) if config.parity else Texts(text)
    made = train(
        texts,
        config.vocab_size,
        segmenter(config.language) if config.language else None,
        parity=equal_lengths(texts) if config.parity else None,
        superwords_from=config.superwords_from,
        reserved=config.reserved,
    )
    made.save(out)
    figures = {"vocab_size": made.vocab_size, "bytes_per_token": density(made, text)}
    return Outcome(figures, licences(text))


class Texts:
    """Every text of some documents, or those of one language, in order; may be read more than once."""

    def __init__(self, documents: dict[str, Artifact], language: str | None = None):
        self._files = [artifact.file("documents.parquet") for artifact in documents.values()]
        self._language = language

    def __iter__(self) -> Iterator[str]:
        for document in rows(self._files):
            if self._language in (None, document.language):
                yield document.text


def rows(files: list[Path]) -> "Iterator[Document]":
    from endonym.data.document import Document, read_table

    for file in files:
        yield from read_table(file, Document)


def by_language(documents: dict[str, Artifact]) -> dict[str, Texts]:
    """The texts of each language that the documents name, in the order of their first ones."""
    files = [artifact.file("documents.parquet") for artifact in documents.values()]
    languages = dict.fromkeys(document.language for document in rows(files))
    return {language: Texts(documents, language) for language in languages}


def density(
    words: "Tokenizer", documents: dict[str, Artifact], characters: int = 2_000_000
) -> float:
    """UTF-8 bytes per token, a corpus ratio, over the first `characters` of the documents."""
    from endonym.tokenizer.corpus import head
    from endonym.tokenizer.extend import bytes_per_token

    return bytes_per_token(words, list(head(Texts(documents), characters)))


def licences(documents: dict[str, Artifact]) -> list[str]:
    return [licence for one in documents.values() for licence in one.record["licences"]]


STAGE = Stage(
    name="tokenizer",
    version=1,
    kind="tokenizer",
    config=TokenizerConfig,
    slots={"text": Slot("documents", many=True)},
    function=tokenizer,
)
