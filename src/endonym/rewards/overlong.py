"""Soft punishment of overlong completions (DAPO, arXiv:2503.14476, eq. 13; METHODS 1.3).

    R(y) =  0                                  |y| <= L_max - L_c
            ((L_max - L_c) - |y|) / L_c        L_max - L_c < |y| <= L_max
           -1                                  |y| >  L_max

|y|: tokens of the completion. DAPO: L_max = 20,480, L_c = 4,096. Typhoon-S: 4,096 and 1,024, so that it
begins at 3,072, with weight 1. In an episode with tools the completion's ids hold the tools' words too.
"""

from endonym.core.errors import DataError, RecipeError
from endonym.rewards.base import Completion, Reward, named


def overlong(*, limit: int, buffer: int) -> Reward:
    """A reward out of `completion_ids`: 0 or less. limit: L_max, buffer: L_c, both in tokens."""
    if not 0 < buffer <= limit:
        raise RecipeError(
            "the overlong buffer does not fit its limit",
            wanted="0 < buffer <= limit, in tokens",
            got=f"limit {limit}, buffer {buffer}",
        )

    def reward(prompts, completions: list[Completion], completion_ids=None, **columns):
        if completion_ids is None or len(completion_ids) != len(completions):
            raise DataError(
                "the reward 'overlong' counts tokens and was given none",
                wanted="the column completion_ids, one list of ids a completion",
                got="nothing" if completion_ids is None else f"{len(completion_ids)} lists",
            )
        return [punishment(len(ids), limit, buffer) for ids in completion_ids]

    return named(reward, "overlong")


def punishment(length: int, limit: int, buffer: int) -> float:
    """R of the head of this file for a completion of `length` tokens."""
    return max(-1.0, min(0.0, (limit - buffer - length) / buffer))
