"""Our decoder, and the fallback, against transformers on tiny random models of every family."""

import pytest
import torch

from endonym.methods.nll import nll
from endonym.model import hf
from endonym.model.decoder import Decoder
from endonym.model.families import layout
from endonym.model.foreign import ForeignLM
from model.oracle import FOREIGN, KINDS, TOKENS, oracle

transformers = pytest.importorskip("transformers")

PARITY = dict(rtol=0, atol=1e-5)
"""float32 logits of size 1 to 3: other orders of the same sums."""

LENGTHS = torch.tensor([4, 9, 6])
SEGMENTS = torch.tensor([[1] * 5 + [2] * 7 + [3] * 8, [1] * 20, [1] * 3 + [2] * 3 + [3] + [0] * 13])


def same_logits(ours, theirs):
    """Whole rows, packed rows against each document alone, and ragged prompts read then continued."""
    full = theirs(TOKENS).logits
    torch.testing.assert_close(ours.logits(ours(TOKENS)), full, **PARITY)
    padded = (torch.arange(20) < LENGTHS[:, None] * 2).long()
    hidden = ours(TOKENS, segments=padded)
    for row, length in enumerate(LENGTHS * 2):
        torch.testing.assert_close(ours.logits(hidden)[row, :length], full[row, :length], **PARITY)
    hidden = ours(TOKENS, segments=SEGMENTS)
    for row, segment in enumerate(SEGMENTS):
        for number in range(1, int(segment.max()) + 1):
            alone = theirs(TOKENS[row][segment == number][None]).logits[0]
            torch.testing.assert_close(ours.logits(hidden[row][segment == number]), alone, **PARITY)
    cache, rows = ours.new_cache(3, 20), torch.arange(3)
    hidden = ours(TOKENS[:, :9], segments=(torch.arange(9) < LENGTHS[:, None]).long(), cache=cache)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(ours.logits(hidden)[row, :length], full[row, :length], **PARITY)
    for step in range(8):
        if step == 4:
            rows = torch.tensor([2, 0])
            cache.keep(rows)
        at = LENGTHS[rows] + step
        hidden = ours(TOKENS[rows, at][:, None], cache=cache)
        torch.testing.assert_close(ours.logits(hidden[:, 0]), full[rows, at], **PARITY)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_native_families(kind, tmp_path):
    theirs = oracle(kind, tmp_path)
    ours = hf.load(tmp_path)
    assert isinstance(ours, Decoder)
    same_logits(ours, theirs)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@torch.no_grad()
def test_heads_biases_and_tied_embeddings(kind, heads, tied, tmp_path):
    biases = {"attention_bias": tied}
    if kind == "llama":
        biases["mlp_bias"] = not tied
    theirs = oracle(kind, tmp_path, num_key_value_heads=heads, tie_word_embeddings=tied, **biases)
    same_logits(hf.load(tmp_path), theirs)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_gradients(kind, tmp_path):
    theirs = oracle(kind, tmp_path, num_key_value_heads=2, tie_word_embeddings=True)
    ours = hf.load(tmp_path)
    labels = TOKENS.roll(-1, 1)
    logits = theirs(TOKENS).logits
    torch.nn.functional.cross_entropy(logits.view(-1, 11), labels.view(-1)).backward()
    (nll(ours(TOKENS), ours.head, labels, torch.ones(3, 20)).value / 60).backward()
    others = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, others[name].grad, **PARITY, msg=name)


@pytest.mark.parametrize("kind", ["exaone_moe", "solar_open"])
def test_gradients_of_experts(kind, tmp_path):
    # transformers 5 holds experts as we do: gate over up, one expert behind the other
    theirs = oracle(kind, tmp_path)
    ours = hf.load(tmp_path)
    (ours.logits(ours(TOKENS)) ** 2).mean().backward()
    (theirs(TOKENS).logits ** 2).mean().backward()
    plan = layout(ours.config, kind, {n: t.shape for n, t in ours.state_dict().items()}, also=True)
    mine, others = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for name, (part,) in plan.items():
        if part.name in mine:
            torch.testing.assert_close(
                mine[part.name].grad, others[name].grad, rtol=1e-4, atol=1e-5, msg=name
            )


@pytest.mark.parametrize(
    "kind, scaling",
    [
        ("llama", {"rope_type": "linear", "factor": 4.0}),
        ("qwen3", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}),
        (
            "llama",
            {
                "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            },
        ),
        ("llama", {"rope_type": "dynamic", "factor": 2.0}),
        (
            "phi3",
            {
                "rope_type": "longrope", "partial_rotary_factor": 1.0,
                "short_factor": [1.0, 1.1, 1.3, 1.4], "long_factor": [1.0, 2.0, 3.0, 4.0],
            },
        ),
    ],
)  # fmt: skip
@torch.no_grad()
def test_scaled_positions(kind, scaling, tmp_path):
    theirs = oracle(
        kind,
        tmp_path / "a",
        rope_parameters={"rope_theta": 500.0, **scaling},
        max_position_embeddings=16,
        **({"original_max_position_embeddings": 8} if kind == "phi3" else {}),
    )
    ours = hf.load(tmp_path / "a")
    assert isinstance(ours, Decoder) and ours.config.rope_scaling.type == scaling["rope_type"]
    for length in (6, 20):  # shorter and longer than what the length-dependent ones ask for
        tokens = TOKENS[:, :length]
        torch.testing.assert_close(ours.logits(ours(tokens)), theirs(tokens).logits, **PARITY)
    hf.save(ours, tmp_path / "b")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    torch.testing.assert_close(again(TOKENS).logits, theirs(TOKENS).logits, **PARITY)


@pytest.mark.parametrize("kind", FOREIGN)
@torch.no_grad()
def test_fallback_families(kind, tmp_path):
    # Gemma3 with a window of 6: documents that are longer show whether the window survives packing
    theirs = oracle(kind, tmp_path)
    ours = hf.load(tmp_path)
    assert isinstance(ours, ForeignLM)
    same_logits(ours, theirs)


@torch.no_grad()
def test_fallback_out_and_in_again(tmp_path):
    theirs = oracle("Gemma3", tmp_path / "a")
    saved = hf.save(hf.load(tmp_path / "a"), tmp_path / "b", eos_ids=[4])
    assert saved.architecture == "Gemma3ForCausalLM"
    again = hf.load(tmp_path / "b")
    torch.testing.assert_close(again.logits(again(TOKENS)), theirs(TOKENS).logits, **PARITY)
    assert again.module.generation_config.eos_token_id == 4
    assert not list((tmp_path / "b").glob(".aside*"))


@torch.no_grad()
def test_native_can_be_declined(tmp_path):
    theirs = oracle("qwen3", tmp_path)
    ours = hf.load(tmp_path, native=False)
    assert isinstance(ours, ForeignLM)
    torch.testing.assert_close(ours.logits(ours(TOKENS)), theirs(TOKENS).logits, **PARITY)
