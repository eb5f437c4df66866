"""Our decoder, and the fallback, against transformers on tiny random models; and the way back."""

import json
from pathlib import Path

import pytest
import torch

from endonym.methods.nll import nll
from endonym.model import hf
from endonym.model.decoder import Decoder
from endonym.model.foreign import ForeignLM

transformers = pytest.importorskip("transformers")

PARITY = dict(rtol=0, atol=1e-5)
"""float32 logits of size 1 to 3: other orders of the same sums."""

LENGTHS = torch.tensor([4, 9, 6])
SEGMENTS = torch.tensor([[1] * 5 + [2] * 7 + [3] * 8, [1] * 20, [1] * 3 + [2] * 3 + [3] + [0] * 13])
TOKENS = torch.randint(11, (3, 20), generator=torch.Generator().manual_seed(0))

SIZES = dict(
    vocab_size=11, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, pad_token_id=None, bos_token_id=None, eos_token_id=3,
)  # fmt: skip


def oracle(family: str, folder: Path, **changes):
    """A random transformers model, saved in `folder`; theta 500 so that a forgotten one shows."""
    special = {
        "Llama": {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}},
        "Qwen3": {
            "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
            "head_dim": 16,  # 4 x 16 is not the width
        },
        "Gemma3": {
            "head_dim": 16,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        "Phi3": {},
    }[family]
    name = "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config"
    config = getattr(transformers, name)(**{**SIZES, **special, **changes})
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    return model


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


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
@torch.no_grad()
def test_native_families(family, heads, tied, tmp_path):
    biases = {"attention_bias": tied}
    if family == "Llama":
        biases["mlp_bias"] = not tied
    theirs = oracle(family, tmp_path, num_key_value_heads=heads, tie_word_embeddings=tied, **biases)
    ours = hf.load(tmp_path)
    assert isinstance(ours, Decoder)
    same_logits(ours, theirs)


@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_gradients(family, tmp_path):
    theirs = oracle(family, tmp_path, num_key_value_heads=2, tie_word_embeddings=True)
    ours = hf.load(tmp_path)
    labels = TOKENS.roll(-1, 1)
    logits = theirs(TOKENS).logits
    torch.nn.functional.cross_entropy(logits.view(-1, 11), labels.view(-1)).backward()
    (nll(ours(TOKENS), ours.head, labels, torch.ones(3, 20)).value / 60).backward()
    others = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, others[name].grad, **PARITY, msg=name)


@pytest.mark.parametrize("family", ["Gemma3", "Phi3"])
@torch.no_grad()
def test_fallback_families(family, tmp_path):
    # Gemma3 with a window of 6: documents that are longer show whether the window survives packing
    theirs = oracle(family, tmp_path)
    ours = hf.load(tmp_path)
    assert isinstance(ours, ForeignLM)
    same_logits(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
@torch.no_grad()
def test_out_and_in_again_is_exact(family, dtype, tmp_path):
    oracle(family, tmp_path / "a", tie_word_embeddings=family == "Qwen3")
    one = hf.load(tmp_path / "a", dtype=dtype)
    hf.save(one, tmp_path / "b", eos_ids={5, 3})
    two = hf.load(tmp_path / "b", dtype=dtype)
    assert two.config == one.config.model_copy(update={"eos_token_id": [3, 5]})
    assert two.state_dict().keys() == one.state_dict().keys()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "b", dtype=dtype, output_loading_info=True
    )
    assert not any(report.values())
    if dtype == torch.float32:
        torch.testing.assert_close(theirs(TOKENS).logits, two.logits(two(TOKENS)), **PARITY)
    assert theirs.generation_config.eos_token_id == [3, 5]


@torch.no_grad()
def test_fallback_out_and_in_again(tmp_path):
    theirs = oracle("Gemma3", tmp_path / "a")
    hf.save(hf.load(tmp_path / "a"), tmp_path / "b", eos_ids=[4])
    again = hf.load(tmp_path / "b")
    torch.testing.assert_close(again.logits(again(TOKENS)), theirs(TOKENS).logits, **PARITY)
    assert again.module.generation_config.eos_token_id == 4
    assert not list((tmp_path / "b").glob(".aside*"))


@torch.no_grad()
def test_sharded_folder(tmp_path):
    theirs = oracle("Llama", tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    ours = hf.load(tmp_path / "shards")
    torch.testing.assert_close(ours.logits(ours(TOKENS)), theirs(TOKENS).logits, **PARITY)


@pytest.mark.parametrize(
    "field, value",
    [
        ("rope_scaling", {"rope_type": "linear", "factor": 2.0}),
        ("rope_parameters", {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}),
        ("rope_parameters", {"rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        ("hidden_act", "gelu"),
        ("sliding_window", 4),
        ("attention_dropout", 0.1),
        ("model_type", "gemma3_text"),
        ("qk_norm", True),
        ("logit_scale", 0.5),
        ("a_field_of_tomorrow", 1),
    ],
)
def test_no_field_is_passed_over(field, value, tmp_path):
    oracle("Llama", tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert hf.why_not_native(raw) is None
    assert field in hf.why_not_native({**raw, field: value})


def test_window_of_qwen3_counts_only_when_it_is_on(tmp_path):
    oracle("Qwen3", tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    off = {**raw, "use_sliding_window": False, "sliding_window": 4096}
    assert hf.why_not_native(off) is None
    assert hf.why_not_native({**off, "use_sliding_window": True})
    assert hf.why_not_native({**raw, "layer_types": ["full_attention", "sliding_attention"]})


@torch.no_grad()
def test_scaled_rope_goes_to_transformers(tmp_path):
    parameters = {"rope_theta": 500.0, "rope_type": "linear", "factor": 4.0}
    theirs = oracle("Llama", tmp_path, rope_parameters=parameters)
    ours = hf.load(tmp_path)
    assert isinstance(ours, ForeignLM)
    torch.testing.assert_close(ours.logits(ours(TOKENS)), theirs(TOKENS).logits, **PARITY)


@torch.no_grad()
def test_native_can_be_declined(tmp_path):
    theirs = oracle("Qwen3", tmp_path)
    ours = hf.load(tmp_path, native=False)
    assert isinstance(ours, ForeignLM)
    torch.testing.assert_close(ours.logits(ours(TOKENS)), theirs(TOKENS).logits, **PARITY)
