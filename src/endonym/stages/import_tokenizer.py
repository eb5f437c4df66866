"""A tokenizer out of any file or folder that holds one, made an artifact."""

from pathlib import Path

from endonym.core.artifact import Artifact
from endonym.core.config import Config, ExternalPath
from endonym.core.context import Context
from endonym.core.stage import Outcome, Stage


class ImportTokenizerConfig(Config):
    path: ExternalPath
    """A Hugging Face folder, tokenizer.json, vocab.json beside merges.txt, a SentencePiece model or a
    file of tiktoken ranks."""
    pattern: str = ""
    """Split pattern of a rank file of an unknown family."""
    licence: str = ""


def import_tokenizer(
    config: ImportTokenizerConfig, context: Context, out: Path, **inputs: Artifact
) -> Outcome:
    """A Hugging Face tokenizer folder with the ids of the original."""
    from endonym.tokenizer.read import read

    words = read(Path(config.path), config.pattern or None)
    words.save(out)
    return Outcome({"vocab_size": words.vocab_size}, [config.licence] if config.licence else [])


STAGE = Stage(
    name="import_tokenizer",
    version=1,
    kind="tokenizer",
    config=ImportTokenizerConfig,
    slots={},
    function=import_tokenizer,
)
