"""How often a reward model puts the better answer first, with an interval, in all and by task."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np

from endonym.core.context import Context
from endonym.core.errors import DataError
from endonym.data.document import Preference
from endonym.data.pairs import sides
from endonym.eval.intervals import Interval, bootstrap, wilson
from endonym.model.reward import Reward, scores
from endonym.tokenizer.folder import Tokenizer


@dataclass(frozen=True)
class Ranked:
    """One group of pairs. accuracy: share with r_chosen > r_rejected (Wilson), equal rewards being no
    hit; margin: mean of r_chosen - r_rejected (bootstrap)."""

    accuracy: Interval
    margin: Interval


@dataclass(frozen=True)
class Ranking:
    """All pairs, the same by task (of fluency pairs: the kind of damage), and by language.

    dropped: pairs with a side of more than the tokens allowed, which were not read
    """

    whole: Ranked
    by_task: dict[str, Ranked]
    by_language: dict[str, Ranked]
    dropped: int


def ranking(
    model: Reward,
    tokenizer: Tokenizer,
    pairs: Iterable[Preference],
    context: Context,
    *,
    longest: int,
    title: str = "pairs",
) -> Ranking:
    """Rewards of both sides of every pair, compared. DataError where no pair can be read."""
    rows, encoded, dropped = [], [], 0
    for pair in pairs:
        both = sides(tokenizer, pair)
        if max(map(len, both)) > longest:
            dropped += 1
            continue
        rows.append(pair)
        encoded.append(both)
    if not rows:
        raise DataError(
            "there is no pair to compare", wanted=f"sides of at most {longest} tokens", got=dropped
        )
    found = scores(model, list(chain.from_iterable(encoded)), context, title)
    gaps = found[0::2].astype(np.float64) - found[1::2]
    return Ranking(
        whole=_ranked(gaps),
        by_task=_grouped(gaps, [pair.task for pair in rows]),
        by_language=_grouped(gaps, [pair.language for pair in rows]),
        dropped=dropped,
    )


def _grouped(gaps: np.ndarray, labels: list[str]) -> dict[str, Ranked]:
    column = np.array(labels)
    return {label: _ranked(gaps[column == label]) for label in sorted(set(labels))}


def _ranked(gaps: np.ndarray) -> Ranked:
    return Ranked(wilson(int((gaps > 0).sum()), len(gaps)), bootstrap(gaps))
