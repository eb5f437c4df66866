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
    from endonym.tokenizer.folder import Tokenizer


class TokenizerConfig(Config):
    vocab_size: int = Field(ge=300)
    language: str = ""
    """Language whose words merges must not cross ("" where white space parts them)."""


def tokenizer(
    config: TokenizerConfig, context: Context, out: Path, *, text: dict[str, Artifact]
) -> Outcome:
    """A tokenizer folder (tokenizer.json, ChatML template) out of documents."""
    from endonym.lang.segment import segmenter
    from endonym.tokenizer.train import train

    segment = segmenter(config.language) if config.language else None
    made = train(Texts(text), config.vocab_size, segment)
    made.save(out)
    figures = {"vocab_size": made.vocab_size, "bytes_per_token": density(made, text)}
    return Outcome(figures, licences(text))


class Texts:
    """Every text of some documents, in order; may be read more than once."""

    def __init__(self, documents: dict[str, Artifact]):
        self._files = [artifact.file("documents.parquet") for artifact in documents.values()]

    def __iter__(self) -> Iterator[str]:
        from endonym.data.document import Document, read_table

        for file in self._files:
            for document in read_table(file, Document):
                yield document.text


def density(
    words: "Tokenizer", documents: dict[str, Artifact], characters: int = 2_000_000
) -> float:
    """UTF-8 bytes per token, a corpus ratio, over the first `characters` of the documents."""
    from endonym.tokenizer.extend import bytes_per_token

    sample, size = [], 0
    for text in Texts(documents):
        sample.append(text)
        size += len(text)
        if size >= characters:
            break
    return bytes_per_token(words, sample)


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
