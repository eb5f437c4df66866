"""The needle grid: exact lengths and depths, and scores of models whose skill is known."""

from types import SimpleNamespace

import pytest
import torch

from endonym.core.errors import DataError, RecipeError
from endonym.eval import needles as grid
from endonym.eval.needles import Cell, figures, longest, needle_grid
from endonym.model.config import ModelConfig
from endonym.tasks.needle import NeedleConfig, needles
from eval.tiny import ENGLISH, THAI, context, model, tokenizer

HAYSTACK = [" ".join([ENGLISH, "and further down the coast the people built another town"]), THAI]


class Reader:
    """Predicts what followed the longest earlier stretch that ends like the text so far; `wrong`
    tokens of each row's end are predicted wrongly."""

    def __init__(self, size: int, wrong: int = 0, window: int | None = None):
        self.config = SimpleNamespace(max_position_embeddings=size, vocab_size=420)
        self.head, self.cap, self.wrong, self.window = torch.eye(420), None, wrong, window
        self.seen = []

    def __call__(self, tokens, positions, segments):
        self.seen.append(tokens)
        states = torch.zeros(*tokens.shape, 420)
        for line, row in enumerate(tokens.tolist()):
            for t in range(len(row) - 20, len(row)):
                states[line, t, self._next(row[: t + 1])] = 1.0
            for t in range(len(row) - self.wrong, len(row)):
                states[line, t] = states[line, t].roll(1)
        return states

    def logits(self, hidden):
        return hidden

    def _next(self, row):
        row = row if self.window is None else row[-self.window :]
        best, found = -1, row[-1]
        for end in range(len(row) - 1):
            same = 0
            while same <= end and row[end - same] == row[-1 - same]:
                same += 1
            if same > max(best, 0):
                best, found = same, row[end + 1]
        return found


def settings(**changes):
    given = {"language": "en", "lengths": [130, 200], "depths": [0.0, 0.5, 1.0], "amount": 3}
    return NeedleConfig.read(given | {"digits": 4} | changes)


def test_a_model_that_searches_finds_every_needle_in_every_cell():
    reader = Reader(200)
    cells = needle_grid(reader, tokenizer(), HAYSTACK, settings(), context())
    assert [(cell.length, cell.depth) for cell in cells] == [
        (length, depth) for length in (130, 200) for depth in (0.0, 0.5, 1.0)
    ]
    assert all(cell.found == cell.tokens == cell.chosen == 1 and cell.n == 3 for cell in cells)
    assert {row.shape[1] + 1 for row in reader.seen} == {130, 200}, "exact to the token"
    found = figures(cells)
    assert found["needle_min"] == found["needle_130"] == found["needle_200"] == 1


def test_one_wrong_token_is_a_needle_not_found_but_a_choice_kept():
    cells = needle_grid(Reader(200, wrong=1), tokenizer(), HAYSTACK, settings(), context())
    assert all(cell.found == 0 and cell.chosen == 1 and 0 < cell.tokens < 1 for cell in cells)


def test_what_lies_outside_the_window_is_not_found():
    """150 tokens of sight: enough for the needle right before the question, not for the others."""
    reader = Reader(300, window=150)
    cells = needle_grid(reader, tokenizer(), HAYSTACK, settings(lengths=[300]), context())
    by_depth = {cell.depth: cell for cell in cells}
    assert by_depth[1.0].found == 1 and by_depth[0.0].found == 0
    assert figures(cells)["needle_min"] == 0


@pytest.mark.parametrize("language", ["en", "th"])
def test_the_needle_lies_at_the_depth_between_two_words(language):
    words = tokenizer()
    ids = words.encode("\n".join(HAYSTACK))
    for number, one in enumerate(needles(language, "test", amount=4)):
        for depth in (0.0, 0.3, 0.7, 1.0):
            row = grid._row(words, ids, one, 300, depth, number)
            text = words.decode([*row.tokens, row.answer[-1]])
            assert len(row.tokens) == 299 and text.count(f"\n{one.statement}\n") == 1
            assert text.endswith(f"\n{one.question}{one.answer}")
            before, after = text.split(f"\n{one.statement}\n")
            after = after[: after.rindex(f"\n{one.question}")]
            place = len(words.encode(before)) / (
                len(words.encode(before)) + len(words.encode(after))
            )
            assert abs(place - depth) < 0.15
            assert not before or not after or before[-1].isspace() or after[0].isspace()


def test_rows_at_a_time_change_nothing():
    lm = model(size=256)
    whole = needle_grid(lm, tokenizer(), HAYSTACK, settings(), context())
    apart = needle_grid(lm, tokenizer(), HAYSTACK, settings(), context(rows_per_device=1))
    assert whole == apart


def test_what_does_not_fit_is_refused_not_shortened():
    with pytest.raises(RecipeError, match="beyond the model's context"):
        needle_grid(Reader(199), tokenizer(), HAYSTACK, settings(), context())
    with pytest.raises(RecipeError, match="no room"):
        needle_grid(Reader(200), tokenizer(), HAYSTACK, settings(lengths=[60]), context())
    with pytest.raises(DataError, match="no haystack"):
        needle_grid(Reader(200), tokenizer(), [""], settings(), context())


def test_a_stretched_rotation_reaches_further():
    sizes = {
        "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "max_position_embeddings": 64,
    }  # fmt: skip
    assert longest(ModelConfig.read(sizes)) == 64
    scaled = sizes | {"rope_scaling": {"type": "dynamic", "factor": 4.0}}
    assert longest(ModelConfig.read(scaled)) == 256


def test_the_worst_cell_is_the_minimum():
    cells = [Cell(64, 0.0, 1.0, 1.0, 1.0, 4), Cell(64, 1.0, 0.5, 0.9, 1.0, 4)]
    assert figures(cells) == {
        "needle_min": 0.5,
        "needle_mean": 0.75,
        "needle_64": 0.75,
        "needle_tokens": pytest.approx(0.95),
        "needle_choice": 1.0,
    }
