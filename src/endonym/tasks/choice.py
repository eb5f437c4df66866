"""One of several options: by likelihood of the continuations, or by reading a reply.

Options are shown as "(1) ...", "(2) ..." in every language, because that is how Thai and Korean
exams print them and because no letter of any script is favoured. How a reply is read is in
rewards/choice.py.
"""

from endonym.core.errors import DataError
from endonym.lang.pack import pack
from endonym.rewards.choice import read_choice
from endonym.tasks.base import Item, Verdict


class ChoiceTask:
    """target: the language's sentence with the right number. check: 1 for the right option."""

    def target(self, item: Item) -> str:
        words = pack(item.language or "en").choice
        return words.reply.format(number=_gold(item) + 1)

    def check(self, item: Item, reply: str) -> Verdict:
        picked, reason = read_choice(reply, item.choices)
        if picked is None:
            return Verdict(0.0, reason)
        is_right = picked == _gold(item)
        return Verdict(float(is_right), "right" if is_right else "wrong option", str(picked))


TASK = ChoiceTask()


def show(options: list[str]) -> str:
    """The options as lines "(1) ...", "(2) ..."."""
    return "\n".join(f"({number}) {text}" for number, text in enumerate(options, start=1))


def continuations(item: Item) -> tuple[str, list[str]]:
    """The context and its continuations, for scoring by likelihood.

    Spaces at the context's end move to the front of every continuation, as in lm-eval: a word's
    first piece usually carries its space. The two are to be encoded apart, never joined and cut: a
    Thai context can swallow the first piece of what follows. A continuation that is empty would
    score best of all and is refused.
    """
    context = item.context.rstrip(" ")
    space = item.context[len(context) :]
    if not all(choice.strip() for choice in item.choices):
        raise DataError("an empty option", where=f"item {item.id}", got=item.choices)
    return context, [space + choice for choice in item.choices]


def _gold(item: Item) -> int:
    if not item.answer.isdecimal() or int(item.answer) >= len(item.choices):
        raise DataError(
            "the gold answer is not the index of an option",
            where=f"item {item.id}",
            wanted=f"0..{len(item.choices) - 1}",
            got=repr(item.answer),
        )
    return int(item.answer)
