"""The mass on foreign script: against a sum over every prefix, and what counts as foreign."""

from unicodedata import category

import pytest
import torch

from endonym.engine.generate import generate
from endonym.engine.sampler import Sampling
from endonym.eval import foreign
from endonym.eval.foreign import foreign_mass, foreign_tokens, is_mixed
from eval.tiny import context, model, tokenizer

PROMPTS = ["น้ำ", "the water", "มาก" * 5, "population"]


def drawn(seed=0):
    prompts = [tokenizer().encode(text) for text in PROMPTS]
    sampling = Sampling(temperature=1.3, max_tokens=9, seed=seed)
    made = generate(model(), prompts, sampling, tokenizer().stop_ids)
    return prompts, [each.tokens for each in made]


def test_foreign_is_a_token_with_a_letter_of_another_script():
    words, size = tokenizer(), tokenizer().vocab_size
    thai, english = foreign_tokens(words, "th", size + 3), foreign_tokens(words, "en", size + 3)
    assert thai.shape == (size + 3,) and not thai[size:].any()
    (water,) = {v for v in range(size) if words.decode([v]) == " the"}
    assert thai[water] and not english[water]
    for v in range(size):
        text = words.decode([v])
        if any("ก" <= c <= "๎" for c in text):
            assert english[v] and not thai[v]
        if not any(category(c)[0] in "LM" for c in text):  # signs, parts of characters, control
            assert not english[v] and not thai[v]
    assert not thai[words.turn_end_id] and not thai[words.eos_id]  # though "im_end" is Latin


@pytest.mark.parametrize("language", ["th", "en"])
def test_mass_is_the_sum_over_every_prefix(language, monkeypatch):
    monkeypatch.setattr(foreign, "POSITIONS", 7)
    prompts, replies = drawn()
    found = foreign_mass(
        model(), tokenizer(), prompts, replies, language, context(rows_per_device=3)
    )
    is_foreign = foreign_tokens(tokenizer(), language, model().head.shape[0])
    for prompt, reply, (mass, positions) in zip(prompts, replies, found):
        wanted = 0.0
        for t in range(len(reply)):
            with torch.no_grad():
                hidden = model()(torch.tensor([prompt + reply[:t]]))[0, -1]
                p = torch.softmax(hidden @ model().head.T, 0)
            wanted += float(p[is_foreign].sum())
        assert positions == len(reply) and mass == pytest.approx(wanted, rel=1e-4)
    assert 0 < found[0][0] < found[0][1]


def test_mixed_replies_hold_a_foreign_letter():
    assert is_mixed("น้ำ water", "th") and is_mixed("물 水", "ko") and is_mixed("น้ำ", "en")
    assert not is_mixed("น้ำ 12%", "th") and not is_mixed("12", "th")
    assert not is_mixed("<think>water</think>น้ำ", "th")
