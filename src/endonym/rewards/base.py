"""What every reward shares: TRL's signature, replies as strings or as message lists, three outcomes.

    f(prompts, completions, **columns) -> list[float | None]

One value a completion:

    a number    how good the completion is
    None        the reward does not apply to that row (no gold answer, for instance)
    FAILED      it could not be judged: the judge, the sandbox or a worker was down. A row with such a
                part has no total and is left out of learning. It is never 0: a model must not be
                taught by the weather of a network.

A column is a list as long as completions, or absent. Rewards are plain callables: any of them can be
handed to trl's GRPOTrainer as it is (TRL writes None as nan, and sums what is not nan).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from endonym.core.errors import DataError

Completion = str | list[dict[str, Any]]
Reward = Callable[..., list[float | None]]

FAILED = float("nan")


def is_failed(value: float | None) -> bool:
    """Whether a reward's value says that the completion could not be judged."""
    return value is not None and math.isnan(value)


def said(text: str, tag: str = "think") -> str:
    """What a text says to its reader: what follows the last "</tag>", up to a "<tag>" after it.

    A thought that is never closed says nothing: an answer inside it was not given. So "" is what
    remains of a reply that was cut off while thinking.
    """
    return text.rpartition(f"</{tag}>")[2].partition(f"<{tag}>")[0]


def raw_text(completion: Completion, tag: str = "think") -> str:
    """The assistant's last turn as it was written, thoughts included.

    Thoughts that a parser has put under "reasoning_content" are put back between their tags.
    """
    if isinstance(completion, str):
        return completion
    turns = [turn for turn in completion if turn.get("role") == "assistant"]
    if not turns:
        return ""
    text, thoughts = turns[-1].get("content") or "", turns[-1].get("reasoning_content")
    return f"<{tag}>{thoughts}</{tag}>{text}" if thoughts else text


def reply_text(completion: Completion, tag: str = "think") -> str:
    """The assistant's last words in a completion, without its thoughts."""
    return said(raw_text(completion, tag), tag)


def question_text(prompt: Completion) -> str:
    """What was asked: the last user turn, or the whole of a plain prompt."""
    if isinstance(prompt, str):
        return prompt
    asked = [turn for turn in prompt if turn.get("role") == "user"]
    return (asked[-1].get("content") or "") if asked else ""


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


def named(reward: Reward, name: str) -> Reward:
    """The same reward under the name by which TRL logs it."""
    reward.__name__ = name
    return reward
