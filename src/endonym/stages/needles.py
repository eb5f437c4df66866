"""Long documents in which facts are hidden and asked for at the end: text for a context extension.

A model finds a needle (eval/needles.py) only if its training text ever made it look far back for what
it needs. These documents do: running text of other documents, needles in it, their questions and
answers behind it. Their keys are those for training; the grid asks for others (tasks/needle.py).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.core.stage import Outcome, Slot, Stage


class NeedlesConfig(Config):
    language: str
    amount: int = Field(gt=0)
    """Documents."""
    characters: tuple[int, int] = (2000, 8000)
    """Of the running text of a document: at least, at most. All lengths are as frequent."""
    hidden: tuple[int, int] = (1, 4)
    """Needles of a document: at least, at most."""
    lists: float = Field(default=0.0, ge=0, le=1)
    """Share of the documents that are lists instead: keys and numbers, said several times over. A small
    model learns to look back from these in minutes (0.7M parameters: half a million tokens), and has not
    learnt it from needles in running text after twice as many: their digits are a few tokens of hundreds."""
    listed: tuple[int, int] = (1, 4)
    """Lines of a list: at least, at most."""
    digits: int = Field(default=7, gt=0, le=18)
    """Of a hidden number. RULER: 7."""
    seed: int = 0


def needles(
    config: NeedlesConfig, context: Context, out: Path, *, text: dict[str, Artifact]
) -> Outcome:
    """documents.parquet: `amount` documents made of the running text of those given, one after another
    and again from the beginning where they end."""
    from endonym.data.document import write_table

    for name in ("characters", "hidden", "listed"):
        least, most = getattr(config, name)
        if not 1 <= least <= most:
            raise RecipeError(
                "a range is empty", where=name, wanted="[least, most], from 1", got=[least, most]
            )
    licences = sorted({licence for one in text.values() for licence in one.record["licences"]})
    characters = 0

    def counted() -> Iterator:
        nonlocal characters
        for row in _documents(config, text, " and ".join(licences)):
            characters += len(row.text)
            yield row

    count = write_table(out / "documents.parquet", counted())
    return Outcome({"documents": count, "characters": characters}, licences)


def _documents(config: NeedlesConfig, given: dict[str, Artifact], licence: str) -> Iterator:
    from endonym.data.document import Document
    from endonym.stages.tokenizer import Texts
    from endonym.tasks.needle import document, listing
    from endonym.tasks.needle import needles as made

    haystack = _running_text(Texts(given), config.amount * config.characters[1])
    if not haystack.strip():
        raise DataError("there is no running text to hide needles in", where="text")
    random = Random(f"needle documents {config.seed}")
    most = max(config.hidden[1], config.listed[1])
    hidden = iter(
        made(
            config.language,
            "train",
            amount=config.amount * most,
            seed=config.seed,
            digits=config.digits,
        )
    )
    begin = 0
    for number in range(config.amount):
        is_list = random.random() < config.lists
        least, most = config.listed if is_list else config.hidden
        some = [next(hidden) for _ in range(random.randint(least, most))]
        if is_list:
            text = listing(some, random)
        else:
            length = random.randint(*config.characters)
            piece = haystack[begin : begin + length]
            while len(piece) < length:
                piece += haystack[: length - len(piece)]
            begin = (begin + length) % len(haystack)
            text = document(piece, some, random)
        name = f"needles/{config.language}/{config.seed}/{number}"
        yield Document(name, text, config.language, "endonym needles", licence)


def _running_text(texts: Iterable[str], characters: int) -> str:
    """The texts one after another, as many of them as make so many characters."""
    parts, size = [], 0
    for text in texts:
        parts.append(text)
        size += len(text) + 1
        if size > characters:
            break
    return "\n".join(parts)


STAGE = Stage(
    name="needles",
    version=1,
    kind="documents",
    config=NeedlesConfig,
    slots={"text": Slot("documents", many=True)},
    function=needles,
)
