"""A model's tokenizer extended for a language by continued merges; old ids keep their meaning."""

from pathlib import Path

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome, Slot, Stage


class ExtendConfig(Config):
    vocab_size: int = Field(default=0, ge=0)
    """Of the result, old tokens included; or say how many to `add`."""
    add: int = Field(default=0, ge=0)
    language: str = ""
    """Whose script the new tokens are of, and whose words no merge crosses ("" = any, no words)."""
    words: bool = True
    """False: merges may cross words. Fewer tokens (Thai news: 0.17 a character against 0.22), of which
    more are phrases of the texts they were learnt from."""
    keep: float = Field(default=1.0, gt=0, le=1)
    """Share of the old tokens that stay, by their use in `usage` (K-EXAONE: 0.7). The ids of the others
    go to new tokens."""


def extend(
    config: ExtendConfig,
    context: Context,
    out: Path,
    *,
    base: Artifact,
    text: dict[str, Artifact],
    usage: dict[str, Artifact] | None = None,
    check: dict[str, Artifact] | None = None,
) -> Outcome:
    """A tokenizer folder and pieces.json: for every new id the old ids that it is made of.

    The turn marks of ChatML are added where the base has none, and its template with them. With keep
    below 1, `usage` holds text of all that the model must still read. Of the documents in `check`
    (other languages, code) it is counted how many have other ids than before: changed_<label>.
    """
    from endonym.lang.script import script_ranges
    from endonym.lang.segment import segmenter
    from endonym.stages.tokenizer import Texts, density, licences
    from endonym.tokenizer import chat
    from endonym.tokenizer import extend as method
    from endonym.tokenizer.folder import Tokenizer

    if (config.vocab_size > 0) == (config.add > 0):
        raise RecipeError(
            "one size is needed", wanted="vocab_size (in all) or add (to the old ones)"
        )
    old = Tokenizer.load(base.path)
    result = method.extend(
        old,
        Texts(text),
        config.vocab_size or old.vocab_size + config.add,
        script=script_ranges(config.language) if config.language else None,
        segment=segmenter(config.language) if config.language and config.words else None,
        specials=chat.SPECIALS[1:],
        keep=config.keep,
        usage=Texts(usage) if usage else None,
        check={label: list(Texts({label: each})) for label, each in (check or {}).items()},
    )
    result.save(out)
    figures = {
        "vocab_size": result.tokenizer.vocab_size,
        "bytes_per_token_before": density(old, text),
        "bytes_per_token": density(result.tokenizer, text),
        **{k: v for k, v in result.figures.items() if isinstance(v, int)},
    }
    for label, found in result.figures["check"].items():
        figures |= {f"checked_{label}": found["texts"], f"changed_{label}": found["changed"]}
    return Outcome(figures, [*base.record["licences"], *licences(text)])


STAGE = Stage(
    name="extend",
    version=2,  # 2: native digits stand alone where the old vocabulary's digits do
    kind="tokenizer",
    config=ExtendConfig,
    slots={
        "base": Slot("model or tokenizer"),
        "text": Slot("documents", many=True),
        "usage": Slot("documents", many=True, optional=True),
        "check": Slot("documents", many=True, optional=True),
    },
    function=extend,
)
