"""A model's tokenizer extended for a language by continued merges; old ids keep their meaning."""

import json
from pathlib import Path

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.stage import Outcome, Slot, Stage


class ExtendConfig(Config):
    vocab_size: int = Field(gt=0)
    """Of the result, old tokens included."""
    language: str = ""
    """Whose marks join their letters and whose words merges must not cross ("" = neither)."""


def extend(
    config: ExtendConfig, context: Context, out: Path, *, base: Artifact, text: dict[str, Artifact]
) -> Outcome:
    """A tokenizer folder and pieces.json: for every new id the old ids that it is made of."""
    from endonym.lang.segment import words_of
    from endonym.stages.tokenizer import density, licences, texts
    from endonym.tokenizer import extend as method
    from endonym.tokenizer.folder import Tokenizer

    old = Tokenizer.load(base.path)
    segment = words_of(config.language) if config.language else None
    new, pieces = method.extend(old, texts(text), config.vocab_size, segment=segment)
    new.save(out)
    (out / "pieces.json").write_text(json.dumps(pieces), encoding="utf-8")
    figures = {
        "vocab_size": new.vocab_size,
        "added": len(pieces),
        "bytes_per_token_before": density(old, text)["bytes_per_token"],
        **density(new, text),
    }
    return Outcome(figures, [*base.record["licences"], *licences(text)])


STAGE = Stage(
    name="extend",
    version=1,
    kind="tokenizer",
    config=ExtendConfig,
    slots={"base": Slot("model"), "text": Slot("documents", many=True)},
    function=extend,
)
