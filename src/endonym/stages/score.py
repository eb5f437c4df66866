"""Scores of documents that need no model of language, as columns beside the text; nothing else changes."""

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from endonym.core.artifact import Artifact
from endonym.core.config import Config
from endonym.core.context import Context
from endonym.core.errors import DataError, RecipeError
from endonym.core.stage import Outcome, Slot, Stage

Scorer = Literal["language", "quality", "length", "repetition", "similarity", "random"]


class ScoreConfig(Config):
    scores: list[Scorer] = Field(min_length=1)
    """language:   how sure it is that the text is written in its own language (lang/identify.py): the
                script's share of the letters, or py3langid's probability; 0 where it is another
    quality:    share of the thresholds of the language's pack that the text keeps (lang/quality.py),
                1: it would be kept
    length:     characters
    repetition: share of the words' characters inside 5-grams of words that stood before, Gopher's
                (Rae et al. 2021, appendix A); those of 6 to 10 words are among them
    similarity: log-likelihood ratio a byte of the documents `wanted` against the documents `ordinary`
                (data/importance.py), above 0: more like `wanted`
    random:     from 0 to 1 by a hash of the document's id and `seed`: the control of any threshold"""
    names: dict[Scorer, str] = {}
    """What a score is called in the table, where not as above: {similarity = "education"}."""
    longest: int = Field(default=5, gt=0)
    """Characters of the n-grams of `similarity`, at most."""
    buckets: int = Field(default=1 << 18, gt=1)
    """Numbers that these n-grams are hashed to."""
    smoothing: float = Field(default=1.0, gt=0)
    """Added to the count of each number."""
    seed: int = 0
    """Of `random`."""


def score(
    config: ScoreConfig,
    context: Context,
    out: Path,
    *,
    text: dict[str, Artifact],
    wanted: dict[str, Artifact] | None = None,
    ordinary: dict[str, Artifact] | None = None,
) -> Outcome:
    """documents.parquet: the documents of `text`, in order, with scores added to those they have.

    A score that a document has by the same name is replaced. One that it cannot have (no language
    named) is left out, null in the table; figures count these by score.
    """
    from endonym.data.document import Document, read_table, score_names, write_table

    unused = [scorer for scorer in config.names if scorer not in config.scores]
    if unused:
        raise RecipeError(
            f"a name is given to a score that is not made: {unused[0]}",
            where="names",
            wanted=", ".join(config.scores),
        )
    names = {scorer: config.names.get(scorer, scorer) for scorer in config.scores}
    if len(set(names.values())) < len(config.scores):
        raise RecipeError("two scores of one name", got=", ".join(names.values()))
    model = None
    if "similarity" in config.scores:
        model = _importance(config, wanted, ordinary)
    elif wanted or ordinary:
        raise RecipeError(
            "wanted and ordinary are for the score similarity", got=", ".join(config.scores)
        )
    found: dict[str, array] = {name: array("d") for name in names.values()}
    absent: dict[str, int] = defaultdict(int)

    def scored() -> Iterator[Document]:
        for one in text.values():
            for row in read_table(one.file("documents.parquet"), Document):
                values = _values(row, config, model)
                for scorer, value in values.items():
                    found[names[scorer]].append(value)
                for scorer in config.scores:
                    absent[names[scorer]] += scorer not in values
                added = {names[scorer]: value for scorer, value in values.items()}
                yield replace(row, scores=row.scores | added)

    before = [name for one in text.values() for name in score_names(one.file("documents.parquet"))]
    columns = list(dict.fromkeys([*before, *names.values()]))
    count = write_table(out / "documents.parquet", scored(), scores=columns)
    figures: dict[str, Any] = {
        "documents": count,
        "scores": {
            name: _spread(found[name]) | {"absent": absent[name]} for name in names.values()
        },
    }
    parents = [*text.values(), *(wanted or {}).values(), *(ordinary or {}).values()]
    return Outcome(figures, [licence for one in parents for licence in one.record["licences"]])


def _importance(
    config: ScoreConfig,
    wanted: dict[str, Artifact] | None,
    ordinary: dict[str, Artifact] | None,
):
    from endonym.data.document import Document, read_table
    from endonym.data.importance import Importance

    if not wanted or not ordinary:
        raise RecipeError(
            "the score similarity compares two sets of documents",
            wanted='wanted = "@...", ordinary = "@..."',
        )

    def texts(artifacts: dict[str, Artifact]) -> Iterator[str]:
        for one in artifacts.values():
            for row in read_table(one.file("documents.parquet"), Document):
                yield row.text

    return Importance(
        texts(wanted),
        texts(ordinary),
        longest=config.longest,
        buckets=config.buckets,
        smoothing=config.smoothing,
    )


def _values(row: Any, config: ScoreConfig, model: Any) -> dict[Scorer, float]:
    """The scores of one document, by scorer; without those that need a language it does not name."""
    from endonym.lang.identify import identify
    from endonym.lang.pack import pack
    from endonym.lang.quality import measures, refused

    scorers, values = config.scores, {}
    if "random" in scorers:
        digest = hashlib.sha256(f"{config.seed} {row.id}".encode()).digest()
        values["random"] = int.from_bytes(digest[:6], "big") / 2**48
    if "length" in scorers:
        values["length"] = float(len(row.text))
    if "similarity" in scorers:
        values["similarity"] = model.score(row.text)
    if not row.language:
        return values
    if "language" in scorers:
        guess = identify(row.text)
        values["language"] = guess.probability if guess.language == row.language else 0.0
    if "quality" in scorers or "repetition" in scorers:
        try:
            seen = measures(row.text, row.language)
        except DataError as error:
            raise DataError(
                error.what, where=f"document {row.id}", wanted=error.wanted, do=error.do
            ) from None
        filters = pack(row.language).filters
        if "quality" in scorers:
            values["quality"] = 1 - len(refused(seen, filters)) / _thresholds(seen, filters)
        if "repetition" in scorers:
            values["repetition"] = seen.duplicate_ngrams[0]
    return values


def _thresholds(seen: Any, filters: Any) -> int:
    """How many thresholds the pack has a value for."""
    keys = [f"{edge}_{field.name}" for field in fields(seen) for edge in ("min", "max")]
    return sum(getattr(filters, key, None) is not None for key in keys)


def _spread(values: array) -> dict[str, float]:
    """Mean, lowest, quartiles and highest; {} of nothing."""
    import numpy as np

    if not values:
        return {}
    low, first, middle, third, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    mean = float(np.mean(values))
    return {
        "mean": mean,
        "lowest": low,
        "quartile": first,
        "median": middle,
        "upper_quartile": third,
        "highest": high,
    }


STAGE = Stage(
    name="score",
    version=1,
    kind="documents",
    config=ScoreConfig,
    slots={
        "text": Slot("documents", many=True),
        "wanted": Slot("documents", many=True, optional=True),
        "ordinary": Slot("documents", many=True, optional=True),
    },
    function=score,
)
