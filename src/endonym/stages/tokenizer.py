"""A byte-level BPE tokenizer trained from scratch on documents."""

from pathlib import Path

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.stage import Outcome, Slot, Stage


class TokenizerConfig(Config):
    vocab_size: int = Field(ge=300)
    segment: str = ""
    """Language whose words merges must not cross ("" where white space parts them)."""


def tokenizer(
    config: TokenizerConfig, context: Context, out: Path, *, text: dict[str, Artifact]
) -> Outcome:
    """A tokenizer folder (tokenizer.json, ChatML template) out of documents."""
    from endonym.lang.segment import words_of
    from endonym.tokenizer.train import train

    segment = words_of(config.segment) if config.segment else None
    made = train(texts(text), config.vocab_size, segment)
    made.save(out)
    return Outcome({"vocab_size": made.vocab_size, **density(made, text)}, licences(text))


def texts(documents: dict[str, Artifact]):
    """Every text of some documents, in order."""
    from endonym.data.document import Document, read_table

    for artifact in documents.values():
        for document in read_table(artifact.file("documents.parquet"), Document):
            yield document.text


def density(words, documents: dict[str, Artifact], characters: int = 2_000_000) -> dict[str, float]:
    """UTF-8 bytes per token, a corpus ratio, over the first `characters` of the documents."""
    sample, size = [], 0
    for text in texts(documents):
        sample.append(text)
        size += len(text)
        if size >= characters:
            break
    tokens = sum(len(ids) for ids in words.encode_batch(sample))
    return {"bytes_per_token": sum(len(text.encode()) for text in sample) / max(tokens, 1)}


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
