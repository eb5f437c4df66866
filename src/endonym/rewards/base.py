"""What every reward shares: TRL's signature, and replies as strings or as message lists.

    f(prompts, completions, **columns) -> list[float | None]

One number a completion; None says that the reward does not apply to that row (no gold answer, for
instance). A column is a list as long as completions, or absent. Rewards are plain functions: any of
them can be handed to trl's GRPOTrainer as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

from endonym.core.errors import DataError
from endonym.lang.script import after_thinking

Completion = str | list[dict[str, Any]]
Reward = Callable[..., list[float | None]]


def reply_text(completion: Completion) -> str:
    """The assistant's last words in a completion, without what it thought before "</think>"."""
    if isinstance(completion, str):
        return after_thinking(completion)
    said = [turn for turn in completion if turn.get("role") == "assistant"]
    return after_thinking(said[-1].get("content") or "") if said else ""


def column(name: str, values: Sequence | None, completions: Sequence) -> list:
    """A column's values, one a completion; all None where the data has no such column."""
    if values is None:
        return [None] * len(completions)
    if isinstance(values, str) or len(values) != len(completions):
        raise DataError(
            f"the column {name!r} does not fit the completions",
            wanted=f"{len(completions)} values",
            got=repr(values)[:80] if isinstance(values, str) else f"{len(values)} values",
        )
    return list(values)
