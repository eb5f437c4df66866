"""Step 7 without a model: a known reply is made to obey by rule, or the pair is dropped.

    edit(draft) -> the reply that obeys, or None where it cannot be done

Two sorts of rules. Some choose the constraint's arguments by what the reply is (at least 40 words, where
it has 47; a word that stands in it) and leave the reply alone (fitting.py). Others change its form and
never its words (reshaping.py). What a rule made is verified like any other reply (verification.py), so a
rule may be wrong and only costs the pair.
"""

from collections.abc import Callable

from endonym.synth.instruct.draft import Draft
from endonym.synth.instruct.fitting import FITS
from endonym.synth.instruct.reshaping import SHAPES

EDITS: dict[str, Callable[[Draft], str | None]] = FITS | SHAPES
"""By the name a packed kind gives; "" there means that only a model can obey it."""


def edit(draft: Draft) -> str | None:
    return EDITS[draft.kind.edit](draft)
