"""Differences between two models on the same items, over the seeds of one recipe.

An evaluation keeps what each item gave of each figure (values.jsonl, stages/evaluate.py): a number, or
a part and a whole (bits and bytes; mass and tokens) where the figure is a ratio of sums,

    f(s, c) = sum_i c_i part_si / sum_i c_i whole_si            seed s, items counted c

The difference is the mean over seeds of ours - theirs. Its interval draws items and seeds with
replacement, both at once (the crossed bootstrap of Owen, Annals of Applied Statistics 2007), so it
speaks of other questions and, as far as a few seeds can tell, of another run. Within a seed the two
models share whatever the recipe lets them share (a base, the order of data), and that cancels; so does
what makes an item hard.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from endonym.core.errors import DataError
from endonym.eval.intervals import DRAWS
from endonym.eval.table import Figure

Values = Sequence[float | Sequence[float]]
"""By item: a number, or (part, whole)."""


def difference(
    ours: Sequence[Values], theirs: Sequence[Values], seed: int = 0, *, draws: int = DRAWS
) -> Figure:
    """Mean over seeds of ours - theirs, with a 95 % interval over items and seeds; n: items.

    ours, theirs: the values of one figure, by seed, of the same items in the same order. DataError
    where their numbers differ, or no item has a whole.
    """
    a, b = _table(ours), _table(theirs)
    if a.shape != b.shape:
        raise DataError(
            "paired values must be of the same items and as many seeds",
            wanted=f"{len(b)} seeds of {b.shape[1]} items",
            got=f"{len(a)} seeds of {a.shape[1]}",
        )
    seeds, items = a.shape[:2]
    value = float(_by_seed(a, b, np.ones((1, items))).mean())
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(items, np.full(items, 1 / items), size=draws).astype(np.float64)
    weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    drawn = (weights * _by_seed(a, b, counts)).sum(1)
    if not np.isfinite(value) or not np.isfinite(drawn).any():
        raise DataError("no difference of these values", got="no item with a whole above 0")
    low, high = np.percentile(drawn[np.isfinite(drawn)], [2.5, 97.5])
    return Figure(value, float(low), float(high), items)


def seeds_apart(ours: Sequence[Values], theirs: Sequence[Values]) -> list[float]:
    """ours - theirs, seed by seed."""
    a, b = _table(ours), _table(theirs)
    return [float(d) for d in _by_seed(a, b, np.ones((1, a.shape[1])))[0]]


def _by_seed(a: np.ndarray, b: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Differences [draws, seeds] under item counts [draws, items]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = [[counts @ side[:, :, k].T for k in (0, 1)] for side in (a, b)]
        return sums[0][0] / sums[0][1] - sums[1][0] / sums[1][1]


def _table(runs: Sequence[Values]) -> np.ndarray:
    """[seeds, items, (part, whole)]."""
    lengths = {len(run) for run in runs}
    if len(lengths) != 1 or 0 in lengths:
        raise DataError("seeds of one figure must have the same items", got=sorted(lengths))
    return np.array([[_pair(value) for value in run] for run in runs], np.float64)


def _pair(value: Any) -> tuple[float, float]:
    return (value[0], value[1]) if isinstance(value, Iterable) else (value, 1.0)
