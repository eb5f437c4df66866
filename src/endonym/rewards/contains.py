"""Whether a reply contains gold strings: any of them, or all (RULER's two scores, arXiv:2404.06654).

Both sides are NFC without invisible characters, in 0-9 and lower case, spaces as one. A gold string
that begins or ends in a digit or a Latin letter must stand free there: 12 is not in 4125 nor "art" in
"start". Thai and Korean are searched as substrings; their words are not parted by spaces.
"""

import re

from endonym.core.config import nearest
from endonym.core.errors import RecipeError
from endonym.lang.normalize import latin_digits
from endonym.rewards.base import Completion, Reward, column, named, reply_text
from endonym.rewards.wording import fold

LONGEST = 4000  # characters; a longer reply lists rather than answers

_LEFT, _RIGHT = r"(?<![0-9a-zÀ-ɏ])", r"(?![0-9a-zÀ-ɏ])"
_TIGHT_DIGITS = (r"(?<!\d[.,])", r"(?![.,]\d)")


def contains(*, mode: str = "all", longest: int = LONGEST) -> Reward:
    """1.0 where the reply contains the row's gold strings, else 0.0; None where the row has none.

    The gold strings are the column `answers`, a list for each row, or else the one string of `answer`.
    mode: "all" of them, or "any". longest: a reply of more characters is 0.0: who says everything has
    answered nothing.
    """
    modes = {"all": all, "any": any}
    if mode not in modes:
        raise RecipeError(f"there is no mode {mode!r} of contains", do=nearest(mode, list(modes)))

    def reward(prompts, completions: list[Completion], answers=None, answer=None, **columns):
        many = column("answers", answers, completions)
        single = column("answer", answer, completions)
        values: list[float | None] = []
        for completion, golds, gold in zip(completions, many, single):
            wanted = [each for each in (golds or [gold]) if each]
            text = reply_text(completion)
            held = (holds_string(text, each) for each in wanted)
            values.append(float(len(text) <= longest and modes[mode](held)) if wanted else None)
        return values

    return named(reward, "contains")


def holds_string(text: str, gold: str) -> bool:
    """Whether a gold string stands in a text; see the head of this file."""
    text, gold = _plain(text), _plain(gold)
    if not gold:
        return False
    left = _LEFT if re.match(r"[0-9a-zÀ-ɏ]", gold) else ""
    right = _RIGHT if re.search(r"[0-9a-zÀ-ɏ]$", gold) else ""
    if gold[0].isdigit():
        left += _TIGHT_DIGITS[0]
    if gold[-1].isdigit():
        right += _TIGHT_DIGITS[1]
    return re.search(left + re.escape(gold) + right, text) is not None


def _plain(text: str) -> str:
    return " ".join(latin_digits(fold(text)).split())
