"""Whether a reply thinks first, once, between its tags, and then answers.

    <think>thoughts</think>answer

Typhoon-S (arXiv:2601.18129, released reward code; METHODS 3b.1) pays 0.5 for exactly one pair of
<thinking> tags with the reply beginning at the first; so its whole reward, 0.9 judge + 0.1 format, ends
at 0.95. Here the full value is 1.0 unless `value` says otherwise, and besides its two conditions the
thoughts and the answer must each hold a letter or digit: an empty pair of tags is not thinking.
"""

from endonym.core.errors import RecipeError
from endonym.rewards.base import Completion, Reward, named, raw_text
from endonym.rewards.wording import visible


def format(*, tag: str = "think", value: float = 1.0) -> Reward:
    """A reward of `value` where the form is kept, else 0.0.

    As released: tag = "thinking", value = 0.5.
    """
    if not tag.isidentifier():
        raise RecipeError("the tag of thoughts is no tag name", wanted="think", got=repr(tag))

    def reward(prompts, completions: list[Completion], **columns) -> list[float | None]:
        return [value * keeps_form(raw_text(completion, tag), tag) for completion in completions]

    return named(reward, "format")


def keeps_form(text: str, tag: str = "think") -> bool:
    """Whether a reply is one pair of tags at its start with thoughts in it, and an answer after it."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    text = visible(text).lstrip()
    if text.count(opening) != 1 or text.count(closing) != 1 or not text.startswith(opening):
        return False
    thoughts, _, answer = text.removeprefix(opening).partition(closing)
    return all(any(map(str.isalnum, part)) for part in (thoughts, answer))
