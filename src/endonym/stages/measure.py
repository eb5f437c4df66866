"""What texts cost under a tokenizer, as scores: tokens a character, bytes a token, by label of text."""

from pathlib import Path

from pydantic import Field

from endonym.core.artifact import Artifact, write_json
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.stage import Outcome, Slot, Stage
from endonym.eval.table import Column, Figure


class MeasureConfig(Config):
    characters: int = Field(default=2_000_000, gt=0)
    """Of each text, from the beginning, at most."""


def measure(
    config: MeasureConfig,
    context: Context,
    out: Path,
    *,
    tokenizer: Artifact,
    text: dict[str, Artifact],
    against: Artifact | None = None,
) -> Outcome:
    """scores.json: for each label L of `text`

        tpc_L     tokens per character (Unicode code points), a ratio of totals
        bpt_L     UTF-8 bytes per token, a ratio of totals
        fewer_L   share of tokens saved over the tokenizer `against` on the same text

    and vocab_size. n is the number of characters.
    """
    from endonym.lang.pack import pack
    from endonym.stages.tokenizer import Texts
    from endonym.tokenizer import measure as method
    from endonym.tokenizer.corpus import head
    from endonym.tokenizer.folder import Tokenizer

    words = Tokenizer.load(tokenizer.path)
    other = Tokenizer.load(against.path) if against is not None else None
    columns = [Column("vocab_size", "Vocabulary", "lower", "tokens")]
    figures = {"vocab_size": Figure(words.vocab_size)}
    for label, documents in text.items():
        sample = list(head(Texts({label: documents}), config.characters))
        found = method.measure(words, sample)
        n = found.characters
        figures[f"tpc_{label}"] = Figure(found.tokens_per_character, n=n)
        figures[f"bpt_{label}"] = Figure(found.bytes_per_token, n=n)
        name = pack(label).name if len(label) <= 3 else label
        columns.append(Column(f"tpc_{label}", name, "lower", "tokens/character"))
        columns.append(Column(f"bpt_{label}", name, "higher", "bytes/token"))
        if other is not None:
            saved = 1 - found.tokens / method.measure(other, sample).tokens
            figures[f"fewer_{label}"] = Figure(saved, n=n)
            columns.append(Column(f"fewer_{label}", f"{name}: tokens saved", "higher", "%"))
    scores = {
        "columns": [vars(column) for column in columns],
        "figures": {key: vars(figure) for key, figure in figures.items()},
        "samples": [],
        "notes": [],
    }
    write_json(out / "scores.json", scores)
    return Outcome({key: figure.value for key, figure in figures.items()}, [])


STAGE = Stage(
    name="measure",
    version=1,
    kind="scores",
    config=MeasureConfig,
    slots={
        "tokenizer": Slot("tokenizer or model"),
        "text": Slot("documents", many=True),
        "against": Slot("tokenizer or model", optional=True),
    },
    function=measure,
)
