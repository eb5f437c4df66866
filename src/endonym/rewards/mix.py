"""Several rewards as one weighted sum, each part kept.

    total_i = sum over parts k that apply to row i of  w_k r_ki

A part that gives None for a row adds nothing to it (TRL sums with nansum: the same); a row to which
no part applies is None. Weights are not rescaled by what applies, so rewards of two rows of one
group, which share their columns, stay comparable.
"""

from endonym.core.config import nearest
from endonym.core.errors import RecipeError
from endonym.rewards.answer import answer, boxed
from endonym.rewards.base import Completion, Reward
from endonym.rewards.language import language, particle

REWARDS: dict[str, Reward] = {
    "answer": answer,
    "boxed": boxed,
    "language": language,
    "particle": particle,
}


class Mix:
    """A reward made of named parts; calling it gives the totals, `parts` gives everything."""

    def __init__(self, parts: dict[str, tuple[Reward, float]]):
        self.weighted = dict(parts)
        self.__name__ = "+".join(self.weighted)  # TRL names a reward's metrics by this

    def parts(
        self, prompts, completions: list[Completion], **columns
    ) -> dict[str, list[float | None]]:
        """Every part's own values by name, unweighted, and "total"."""
        found = {
            name: reward(prompts, completions, **columns)
            for name, (reward, _) in self.weighted.items()
        }
        totals: list[float | None] = []
        for row in range(len(completions)):
            terms = [
                weight * found[name][row]
                for name, (_, weight) in self.weighted.items()
                if found[name][row] is not None
            ]
            totals.append(sum(terms) if terms else None)
        return {**found, "total": totals}

    def __call__(self, prompts, completions: list[Completion], **columns) -> list[float | None]:
        return self.parts(prompts, completions, **columns)["total"]


def mix(weights: dict[str, float]) -> Mix:
    """A mixed reward from names and weights, e.g. {"answer": 0.9, "particle": 0.1}."""
    if not weights:
        raise RecipeError("a mixed reward without parts", do=f"name some of: {', '.join(REWARDS)}")
    for name in weights:
        if name not in REWARDS:
            raise RecipeError(f"there is no reward {name!r}", do=nearest(name, list(REWARDS)))
    return Mix({name: (REWARDS[name], float(weight)) for name, weight in weights.items()})
