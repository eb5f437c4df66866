"""A short free answer with one right value; equality is rewards/answer.py's."""

from endonym.rewards.answer import match
from endonym.tasks.base import Item, Verdict


class AnswerTask:
    """target: the gold answer, bare. check: 1 where the reply, or its last \\boxed{}, equals it."""

    def target(self, item: Item) -> str:
        return item.answer

    def check(self, item: Item, reply: str) -> Verdict:
        is_equal, reason, parsed = match(reply, item.answer, item.language)
        return Verdict(float(is_equal), reason, parsed or None)


TASK = AnswerTask()
