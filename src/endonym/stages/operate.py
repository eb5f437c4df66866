"""Surgery on a model's weights without training: today, rows for a larger vocabulary."""

from pathlib import Path
from typing import Literal

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import RecipeError
from endonym.core.stage import Outcome, Slot, Stage


class VocabularyConfig(Config):
    init: Literal["mean", "random", "zero"] = "mean"
    """How a new row starts. mean: of the rows of the token's old pieces (JAI-1, section 3.1.1)."""
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
    """The input model with rows for the tokens that `tokenizer` adds; old rows keep their bits."""
    from endonym.model import hf
    from endonym.surgery.vocab import grow_rows
    from endonym.tokenizer.extend import read_pieces
    from endonym.tokenizer.folder import Tokenizer

    if tokenizer is None:
        raise RecipeError("there is nothing to do", wanted='tokenizer = "@..." of a stage `extend`')
    words = Tokenizer.load(tokenizer.path)
    _, pieces = read_pieces(tokenizer.path)
    model = hf.load(input.path)
    before = model.config.vocab_size
    model = grow_rows(
        model,
        pieces,
        max(words.vocab_size, before),
        init=config.vocabulary.init,
        seed=config.vocabulary.seed,
    )
    hf.save(model, out, eos_ids=words.stop_ids, bos_id=words.bos_id)
    words.save(out)
    figures = {
        "rows_before": before,
        "rows": model.config.vocab_size,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return Outcome(figures, [*input.record["licences"], *tokenizer.record["licences"]])


STAGE = Stage(
    name="operate",
    version=1,
    kind="model",
    config=OperateConfig,
    slots={"input": Slot("model"), "tokenizer": Slot("tokenizer", optional=True)},
    function=operate,
)
