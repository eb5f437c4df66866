"""Probes: the figures of evaluation, on a fixed sample, without touching the model."""

import pytest
import torch

from endonym.core.errors import DataError
from endonym.eval.likelihood import bits_per_byte, total
from endonym.eval.probes import needle_probe, sample, validation_probe
from endonym.tasks.needle import NeedleConfig
from eval.tiny import ENGLISH, THAI, context, model, tokenizer

TEXTS = {"en": [ENGLISH, ENGLISH[:30], ENGLISH[10:50]], "th": [THAI]}


def test_validation_is_bits_per_byte_by_label():
    probe = validation_probe(TEXTS, tokenizer(), context(), tokens=10**6)
    lm = model()
    before = [weight.clone() for weight in lm.parameters()]
    found = probe.measure(lm)
    assert found == pytest.approx(
        {
            f"bpb_{label}": total(bits_per_byte(lm, tokenizer(), texts, context()))
            for label, texts in TEXTS.items()
        }
    )
    assert found == probe.measure(lm), "the same at every call"
    assert all(torch.equal(a, b) for a, b in zip(before, lm.parameters()))


def test_a_sample_holds_so_many_tokens_whatever_the_order():
    texts = [f"{ENGLISH} {n}" for n in range(20)]
    words = tokenizer()
    for tokens in (7, 50, 200):
        taken = sample(texts, words, tokens)
        assert sum(len(words.encode(text)) for text in taken) == pytest.approx(tokens, abs=2)
        assert taken == sample(texts[::-1], words, tokens)
    assert sorted(sample(texts, words, 10**6)) == sorted(texts)
    assert sample(texts, words, 200)[0] != texts[0], "not simply the first"


def test_a_cut_sample_has_whole_characters():
    for tokens in range(1, 12):
        for text in sample([THAI], tokenizer(), tokens):
            assert THAI.startswith(text) and "\ufffd" not in text


def test_nothing_to_measure_on_is_refused_by_name():
    with pytest.raises(DataError, match="no text") as caught:
        validation_probe({"ko": []}, tokenizer(), context(), tokens=100)
    assert caught.value.where == "validation.ko"


def test_needles_are_the_grid_s_figures():
    config = NeedleConfig(language="en", lengths=[130], depths=[0.5], amount=2, digits=2)
    found = needle_probe(config, TEXTS["en"], tokenizer(), context()).measure(model(size=256))
    assert set(found) == {
        "needle_min", "needle_mean", "needle_130", "needle_tokens", "needle_choice",
    }  # fmt: skip
