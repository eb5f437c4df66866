"""Surgery on a model's weights without training: today, rows for another vocabulary."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome, Slot, Stage

if TYPE_CHECKING:
    from endonym.tokenizer.folder import Tokenizer


class VocabularyConfig(Config):
    init: Literal["mean", "overlap", "covariance", "random", "normal", "zero"] = "mean"
    """How a new row starts (surgery/vocab.py). mean: of the rows of the token's old pieces (JAI-1,
    section 3.1.1); the others are there to be compared with it."""
    multiple: int = Field(default=1, ge=1)
    """Rows are padded to a multiple of this (64 in phi-3's table)."""
    seed: int = 0


class OperateConfig(Config):
    vocabulary: VocabularyConfig = VocabularyConfig()


def operate(
    config: OperateConfig,
    context: Context,
    out: Path,
    *,
    input: Artifact,
    tokenizer: Artifact | None = None,
) -> Outcome:
    """The input model with rows for the tokens that `tokenizer` adds; kept rows keep their bits.

    Figures: rows before and after, parameters, and of the new tokens how many have no piece under the
    old tokenizer and so were drawn at random.
    """
    from endonym.model import hf
    from endonym.surgery.vocab import grow_rows, nearest, rows_for
    from endonym.tokenizer.extend import read_pieces
    from endonym.tokenizer.folder import Tokenizer

    if tokenizer is None:
        raise RecipeError("there is nothing to do", wanted='tokenizer = "@..." of a stage `extend`')
    words = Tokenizer.load(tokenizer.path)
    _, pieces = read_pieces(tokenizer.path)
    model = hf.load(input.path)
    before = model.config.vocab_size
    how = config.vocabulary
    if how.init == "overlap":
        spelt = _bytes_of(words)
        new = {number: spelt[number] for number in pieces}
        pieces = nearest(_bytes_of(Tokenizer.load(input.path)), new)
    rows = rows_for(words.vocab_size, before, how.multiple)
    model = grow_rows(model, pieces, rows, init=how.init, seed=how.seed)
    hf.save(model, out, eos_ids=words.stop_ids, bos_id=words.bos_id)
    words.save(out)
    figures = {
        "rows_before": before,
        "rows": model.config.vocab_size,
        "without_pieces": sum(not parts for parts in pieces.values()),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return Outcome(figures, [*input.record["licences"], *tokenizer.record["licences"]])


def _bytes_of(words: "Tokenizer") -> dict[int, bytes]:
    """What each token of a BPE vocabulary stands for."""
    from endonym.tokenizer.units import Units

    state = json.loads(words.backend.to_str())
    units = Units.of(state)
    control = {token["content"] for token in state["added_tokens"]}
    return {
        number: token.encode() if token in control else units.raw(token)
        for token, number in words.backend.get_vocab(with_added_tokens=True).items()
    }


STAGE = Stage(
    name="operate",
    version=1,
    kind="model",
    config=OperateConfig,
    slots={"input": Slot("model"), "tokenizer": Slot("tokenizer", optional=True)},
    function=operate,
)
