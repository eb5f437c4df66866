"""Equal prompts are read once, rows that are not wanted any more are let go, and the tokens are those
of prompts read apart."""

import pytest
import torch

from endonym.engine.generate import generate
from endonym.engine.sampler import Sampling
from endonym.model.config import ModelConfig
from endonym.model.decoder import Decoder
from endonym.model.hf import load, new

SIZES = dict(
    vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
WINDOW = dict(sliding_window=4, layer_types=["sliding_attention", "full_attention"])
DRAWN = Sampling(temperature=0.9, top_p=0.95, max_tokens=12, seed=3)
STOP = {7, 11}


def lively(**changes):
    made = new(ModelConfig(**SIZES, **changes), 0)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.mul_(15)
    return made


@pytest.fixture(scope="module")
def model():
    return lively()


def groups(count=3, size=4):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 16, (count,), generator=generator).tolist()
    distinct = [torch.randint(50, (n,), generator=generator).tolist() for n in lengths]
    return [prompt for prompt in distinct for _ in range(size)]


@pytest.mark.parametrize("changes", [{}, WINDOW], ids=["full", "window"])
@pytest.mark.parametrize("batch", [1, 2, 3, 5, 12])
def test_groups_draw_what_prompts_read_apart_draw(changes, batch):
    lm, prompts, keys = lively(**changes), groups(), list(range(12))
    limits = [1 + 5 * (n % 3) for n in range(12)]  # rows end apart, so groups are divided
    found = generate(lm, prompts, DRAWN, STOP, batch=batch, keys=keys, limits=limits)
    for prompt, key, limit, one in zip(prompts, keys, limits, found):
        alone = generate(lm, [prompt], DRAWN, STOP, keys=[key], limits=[limit])[0]
        assert one.tokens == alone.tokens and one.finish == alone.finish
        assert one.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
        assert one.raw_logprobs == pytest.approx(alone.raw_logprobs, abs=1e-5)


def tokens_read(monkeypatch):
    """How many tokens the model's own forward pass was given, in a list."""
    seen, forward = [], Decoder.forward

    def counted(self, tokens, *others, segments=None, **named):
        seen.append(int(tokens.numel() if segments is None else (segments > 0).sum()))
        return forward(self, tokens, *others, segments=segments, **named)

    monkeypatch.setattr(Decoder, "forward", counted)
    return seen


@pytest.mark.parametrize("batch", [1, 3, 12])
def test_each_prompt_is_read_once(model, monkeypatch, batch):
    seen, prompts = tokens_read(monkeypatch), groups()
    generate(model, prompts, DRAWN, batch=batch)
    assert sum(seen) == sum(len(prompt) for prompt in prompts[::4])


def test_the_fallback_reads_groups_once_too(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Phi3Config(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.Phi3ForCausalLM(config)
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    theirs.save_pretrained(tmp_path)
    lm, prompts = load(tmp_path), groups()
    found = generate(lm, prompts, DRAWN, STOP, batch=5, keys=list(range(12)))
    alone = [generate(lm, [p], DRAWN, STOP, keys=[key])[0] for key, p in enumerate(prompts)]
    assert [each.tokens for each in found] == [each.tokens for each in alone]


@pytest.mark.parametrize("batch", [2, 12])
def test_a_cancelled_answer_keeps_what_was_drawn_and_disturbs_nobody(model, batch):
    prompts, drawn = groups(), [0] * 12

    def count(index, token):
        drawn[index] += 1

    def cancel(index):
        return (index == 2 and drawn[2] >= 3) or (index == 7 and drawn[7] >= 1) or index == 9

    free = generate(model, prompts, DRAWN)
    found = generate(model, prompts, DRAWN, batch=batch, on_token=count, cancel=cancel)
    for index, (one, whole) in enumerate(zip(found, free)):
        length = {2: 3, 7: 1, 9: 0}.get(index, 12)
        assert one.tokens == whole.tokens[:length]
        assert one.finish == ("length" if length == 12 else "cancelled")


def test_all_cancelled(model):
    found = generate(model, groups(), DRAWN, batch=2, cancel=lambda index: True)
    assert all(each.finish == "cancelled" and not each.tokens for each in found)
