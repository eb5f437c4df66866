"""The accuracy of a reward model on pairs: counted by hand, by task, with Wilson's interval."""

import numpy as np
import pytest

from endonym.core.errors import DataError
from endonym.data.document import Preference
from endonym.data.pairs import sides
from endonym.eval import ranking as module
from endonym.eval.intervals import wilson
from endonym.eval.ranking import ranking
from eval.tiny import context, tokenizer


def pair(number, chosen, rejected, task, language="en"):
    say = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
    return Preference(str(number), [], *say, language=language, task=task)


PAIRS = [
    pair(0, "the", "water rose", "order"),  # lengths as rewards: shorter is worse
    pair(1, "the country has", "water", "order"),
    pair(2, "the water rose", "the", "spacing", "th"),
    pair(3, "the water", "the water", "spacing", "th"),
]


@pytest.fixture
def by_length(monkeypatch):
    """Rewards are lengths, so that every gap is known."""

    def scores(model, sequences, context, title):
        return np.array([len(each) for each in sequences], np.float32)

    monkeypatch.setattr(module, "scores", scores)


def test_counts_margins_and_groups(by_length):
    found = ranking(None, tokenizer(), PAIRS, context(), longest=100)
    gaps = [np.subtract(*map(len, sides(tokenizer(), each))) for each in PAIRS]
    hits = sum(gap > 0 for gap in gaps)
    assert gaps[3] == 0 and hits == 2  # equal rewards are no hit
    wanted = wilson(hits, 4)
    assert found.whole.accuracy == wanted
    assert found.whole.margin.value == pytest.approx(np.mean(gaps))
    assert found.by_task["order"].accuracy.value == 0.5
    assert found.by_task["spacing"].margin.value == pytest.approx(gaps[2] / 2)
    assert {name: one.accuracy.n for name, one in found.by_language.items()} == {"en": 2, "th": 2}
    assert found.dropped == 0


def test_long_sides_are_counted_and_not_read(by_length):
    longest = max(len(side) for side in sides(tokenizer(), PAIRS[3]))
    found = ranking(None, tokenizer(), PAIRS, context(), longest=longest)
    assert found.dropped == sum(max(map(len, sides(tokenizer(), each))) > longest for each in PAIRS)
    assert found.dropped > 0 and found.whole.accuracy.n == 4 - found.dropped
    with pytest.raises(DataError, match="no pair to compare"):
        ranking(None, tokenizer(), PAIRS, context(), longest=1)
