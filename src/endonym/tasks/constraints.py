"""A reply that must obey checkable rules; the rules are rewards/constraints.py's."""

from endonym.core.errors import DataError
from endonym.rewards.constraints import applies, obeys
from endonym.tasks.base import Item, Verdict


class ConstraintTask:
    """target: the reference reply. check: 1 if every rule is obeyed (IFEval's strict prompt level);
    the reason names the rules that are not. Rules that do not apply (letter case in a script without
    it) are left out."""

    def target(self, item: Item) -> str:
        return item.answer

    def check(self, item: Item, reply: str) -> Verdict:
        checks = [check for check in item.checks if applies(check)]
        if not checks:
            raise DataError("a constraint without checks that apply", where=f"item {item.id}")
        broken = [check["type"] for check in checks if not obeys(reply, check)]
        return Verdict(float(not broken), f"broken: {', '.join(broken)}" if broken else "obeyed")


TASK = ConstraintTask()
