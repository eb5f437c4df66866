"""How much of each source a run draws: shares out of sizes, and what the sizes allow.

Sources are numbered as in `sizes`, [S], in tokens or in rows; a budget is in the same unit. All
functions are pure; shares are float64 [S], not negative, and sum to 1.
"""

import numpy as np

from endonym.core.errors import RecipeError


def temperature(sizes: np.ndarray, exponent: float) -> np.ndarray:
    """Shares by temperature T = `exponent`: small sources are drawn more often than their size.

        p_i = n_i^(1/T) / sum_j n_j^(1/T)

    T = 1 is by size, T -> infinity gives all the same. Multilingual BERT and XLM (arXiv:1901.07291,
    eq. of section 3.1, alpha = 1/T = 0.5) and mT5 (arXiv:2010.11934, section 3.1, alpha = 0.3, T = 3.33)
    write the power as alpha. The papers count n in sentences and in pages.
    """
    sizes = _checked(sizes)
    if not exponent > 0:
        raise RecipeError("a temperature must be above 0", got=exponent)
    # of the largest size: powers of quotients neither overflow nor vanish
    powers = (sizes / sizes.max()) ** (1 / exponent)
    return powers / powers.sum()


def unimax(sizes: np.ndarray, budget: float, max_epochs: float) -> np.ndarray:
    """Shares by UniMax: as even as possible, with no source seen more than N = `max_epochs` times.

        by rising n_i:   U_i = min( B_left / sources_left, N n_i ),   B_left -= U_i
        p_i = U_i / sum_j U_j                                     algorithm 1, arXiv:2304.09151

    budget B: what the run is to see. The paper counts both in characters, and where N sum_j n_j < B it
    takes what there is, less than the budget; here that is a RecipeError which says how much there is.
    """
    sizes = _checked(sizes)
    _enough(sizes * max_epochs, budget)
    taken, left = np.zeros(len(sizes)), float(budget)
    for place, number in enumerate(np.argsort(sizes, kind="stable")):
        taken[number] = min(left / (len(sizes) - place), max_epochs * sizes[number])
        left -= taken[number]
    return taken / taken.sum()


def capped(
    shares: np.ndarray, sizes: np.ndarray, budget: float, max_epochs: np.ndarray
) -> np.ndarray:
    """The shares with none above its cap; what exceeds a cap goes to the others by their shares.

        c_i = N_i n_i / B
        p'_i = min( c_i, s p_i ),   s >= 1 such that sum_i p'_i = 1

    max_epochs N: [S], inf where there is no limit. A source of share 0 stays at 0. No published
    rule; this one keeps the ratio of every two sources that are under their caps. RecipeError where
    all sources together hold less than the budget.
    """
    shares, sizes = np.asarray(shares, np.float64), _checked(sizes)
    most = np.where(shares > 0, np.asarray(max_epochs, np.float64) * sizes, 0.0)
    _enough(most, budget)
    caps, shares = most / budget, shares / shares.sum()
    full = np.zeros(len(shares), bool)
    while True:  # each turn fills at least one source, so there are at most S
        free = ~full & (shares > 0)
        room = 1 - caps[full].sum()
        scaled = np.where(full, caps, np.where(free, shares, 0.0))
        if free.any():
            scaled[free] *= max(room, 0.0) / shares[free].sum()
        over = free & (scaled > caps)
        if not over.any():
            return scaled / scaled.sum()
        full |= over


def _checked(sizes: np.ndarray) -> np.ndarray:
    sizes = np.asarray(sizes, np.float64)
    if not len(sizes) or not (sizes > 0).all():
        raise RecipeError("a source that is to be sampled is empty", got=sizes.tolist())
    return sizes


def _enough(most: np.ndarray, budget: float) -> None:
    if budget > most.sum() * (1 + 1e-9):
        raise RecipeError(
            "there is less than the run is to see, even with every source at its most epochs",
            wanted=f"{budget:.6g}",
            got=f"{most.sum():.6g}",
            do="lower the tokens or steps, raise max_epochs, or add data",
        )
