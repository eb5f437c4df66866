"""Which sequences a stored score lets through: a mask out of scores, while loading, nothing rewritten."""

import numpy as np

from endonym.data.mix import scattered


def passing(
    score: np.ndarray,
    group: np.ndarray,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    top: float | None = None,
    missing: bool = False,
) -> np.ndarray:
    """bool [N]: the sequences whose score fulfils every condition that is given.

        at_least <= s_i <= at_most    and    rank of s_i within its group < top * n_group

    score: float32 [N], nan = none; `missing` is what these become. group: int [N]. n_group counts the
    group's sequences that have the score, whatever the other conditions do; round(top * n) of them
    pass. Of equal scores at the border the first by a hash of their numbers pass, so that the share
    is kept under any ties (whole marks from 0 to 5 have many) and the order of the data decides
    nothing. Solar Open (arXiv:2601.07022) filters by share and leaves ties open.
    """
    known = ~np.isnan(score)
    keep = known.copy()
    if at_least is not None:
        keep &= score >= np.float32(at_least)
    if at_most is not None:
        keep &= score <= np.float32(at_most)
    if top is not None:
        keep &= _best(score, group, known, top)
    return keep | ~known if missing else keep


def _best(score: np.ndarray, group: np.ndarray, known: np.ndarray, top: float) -> np.ndarray:
    number = np.flatnonzero(known)
    groups = group[number]
    # by group, then best first, then by hash
    order = number[np.lexsort((scattered(number), -score[number], groups))]
    sizes = np.bincount(groups)
    begins = np.cumsum(sizes) - sizes
    rank = np.arange(len(order)) - begins[group[order]]
    keep = np.zeros(len(score), bool)
    keep[order[rank < np.rint(top * sizes)[group[order]]]] = True
    return keep
