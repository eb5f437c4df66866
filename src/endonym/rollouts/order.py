"""The order of a run's prompts: a function of the seed, slot by slot, for as many epochs as it takes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from endonym.core.errors import RecipeError
from endonym.data.document import Prompt
from endonym.data.mix import Mixture


class Order:
    """Prompts of several labels, mixed by weight; every prompt of a label comes once an epoch of it.

    weights: label -> share of the prompts; empty: all prompts of all labels once an epoch
    """

    def __init__(
        self, prompts: dict[str, Sequence[Prompt]], weights: dict[str, float], seed: int = 0
    ):
        unknown = weights.keys() - prompts.keys()
        if unknown:
            raise RecipeError(
                "the mixture names prompts that are not plugged in",
                where="mixture",
                wanted=", ".join(prompts),
                got=", ".join(sorted(unknown)),
            )
        labels = [label for label in prompts if not weights or weights.get(label)]
        self._prompts = [(label, prompt) for label in labels for prompt in prompts[label]]
        sizes = [len(prompts[label]) for label in labels]
        self._begins = np.cumsum([0, *sizes])
        self._mixture = (
            Mixture.of(sizes, [weights[label] for label in labels], seed)
            if weights
            else Mixture.of([sum(sizes)], None, seed)
        )
        told = [[label, asdict(prompt)] for label, prompt in self._prompts]
        written = json.dumps([told, weights, seed], sort_keys=True)
        self.identity = hashlib.sha256(written.encode()).hexdigest()

    def __len__(self) -> int:
        """Prompts of an epoch."""
        return len(self._prompts)

    def all(self) -> list[tuple[str, Prompt]]:
        """(label, prompt) of every prompt that may come."""
        return self._prompts

    def at(self, slot: int) -> tuple[str, Prompt]:
        """(label, prompt) of a slot."""
        source, row = self._mixture.at(np.array([slot]))
        return self._prompts[int(self._begins[source[0]] + row[0])]
