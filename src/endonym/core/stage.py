"""A stage is an equation between artifacts: inputs and literals in, one artifact out.

It knows nothing of recipes, stores or addresses. Its function is plain Python and may be called
without the rest:

    outcome = function(config, context, out, **inputs)      files are written into the folder `out`
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from endonym.core.config import Config
from endonym.core.context import Context


@dataclass(frozen=True)
class Slot:
    """What may be plugged into a stage: one artifact of `kind` ("model", "model or tokenizer"), or several
    by label."""

    kind: str
    many: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a stage says of the files it wrote.

    figures:  numbers and short texts worth quoting, plain JSON
    licences: licences of the data in it (inherited ones included)
    """

    figures: dict[str, Any] = field(default_factory=dict)
    licences: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Stage:
    """One kind of work.

    version: raised when the same literals and inputs would come to mean another result
    kind:    of the artifact it makes ("documents", "tokenizer", "model", "scores" ...)
    slots:   its inputs by name
    """

    name: str
    version: int
    kind: str
    config: type[Config]
    slots: dict[str, Slot]
    function: Callable[..., Outcome]

    def run(self, config: Config, context: Context, out: Path, inputs: dict[str, Any]) -> Outcome:
        """Call the function with every slot filled; an optional slot that is not given gets None."""
        empty = {name: ({} if slot.many else None) for name, slot in self.slots.items()}
        return self.function(config, context, out, **{**empty, **inputs})
