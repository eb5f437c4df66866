"""Decoders that no class of transformers is, run by transformers with the code that lies in their folder."""

import json
import sys

import pytest
import torch

from endonym.core.errors import DataError
from endonym.model import hf
from endonym.model.config import Experts, ModelConfig, RopeScaling
from endonym.model.to_hub import REMOTE
from model.oracle import TOKENS

transformers = pytest.importorskip("transformers")

PARITY = dict(rtol=0, atol=1e-5)
S, F = "sliding_attention", "full_attention"
SMALL = dict(
    vocab_size=11, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, skips=[(2, 0), (3, -1)], skip_alpha=0.7, rope_theta=500.0,
    eos_token_id=3, pad_token_id=0,
)  # fmt: skip
EXPERTS = dict(count=4, chosen=2, width=24)
KINDS = {
    "llama": {},
    "fixed alphas, tied": {"skip_learned": False, "tie_word_embeddings": True},
    "qwen3": {"qk_norm": True, "head_dim": 16, "num_key_value_heads": 1},
    "qwen2": {"qkv_bias": True, "mlp_bias": True},
    "biases, MTP": {"attention_bias": True, "num_key_value_heads": 4, "mtp_modules": 2},
    "mistral": {"sliding_window": 6, "layer_types": [S] * 4},
    "exaone4": {
        "norm_after": True, "qk_norm": True, "sliding_window": 6, "layer_types": [S, F, S, S],
        "rope_layers": "sliding",
    },
    "hyperclovax": {
        "norm_after": True, "norm_before": True, "embedding_multiplier": 3.0,
        "residual_multiplier": 0.7, "logits_scaling": 0.3, "attention_multiplier": 0.2,
    },
    "no skips, soft cap": {"skips": [], "final_logit_softcapping": 2.0},
    "phi3": {"partial_rotary_factor": 0.5},
    "mixtral": {"experts": Experts(**EXPERTS)},
    "jai": {"experts": Experts(**EXPERTS, shared=2, first_dense=1, renormalise=False, scaling=1.7)},
    "solar": {
        "experts": Experts(
            count=8, chosen=3, width=24, router="sigmoid", shared=1, shared_width=40, groups=4,
            chosen_groups=2,
        )
    },
}  # fmt: skip
ROPES = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"original_max_position_embeddings": 4},
    "yarn, half": {
        "factor": 4.0, "original_max_position_embeddings": 16, "truncate": False, "beta_fast": 16.0
    },
    "llama3": {"factor": 8.0, "original_max_position_embeddings": 16},
    "longrope": {
        "original_max_position_embeddings": 8, "short_factor": [1.0, 1.1, 1.3, 1.4],
        "long_factor": [1.0, 2.0, 3.0, 4.0],
    },
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def modules(tmp_path_factory):
    """transformers copies the code of a folder to a place of its own before it runs it."""
    from transformers import dynamic_module_utils

    with pytest.MonkeyPatch.context() as patch:
        place = str(tmp_path_factory.mktemp("modules"))
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", place)
        patch.setattr(sys, "path", [*sys.path])
        yield


def made(folder, dtype=torch.float32, **fields):
    model = hf.new(ModelConfig(**{**SMALL, **fields}), 0).eval()
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if ".skip_alpha." not in name:
                weight.copy_(torch.randn(weight.shape, generator=drawn) * 0.3)
        for layer, alpha in model.model.skip_alpha.items():
            alpha.add_(0.1 * int(layer))
    model.to(dtype)
    assert hf.save(model, folder) == hf.Saved("EndonymForCausalLM")
    return model


def remote(folder, **options):
    loaded, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True, **options
    )
    assert not any(report.values()), report
    return loaded


def same(theirs, ours, tokens=TOKENS):
    torch.testing.assert_close(theirs(tokens).logits, ours.logits(ours(tokens)), **PARITY)


@pytest.mark.parametrize(
    "kind, attention",
    [*((kind, "sdpa") for kind in KINDS), ("qwen3", "eager"), ("exaone4", "eager")],
)
@torch.no_grad()
def test_logits_cache_and_padding(kind, attention, tmp_path):
    ours = made(tmp_path, **KINDS[kind])
    theirs = remote(tmp_path, attn_implementation=attention)
    alphas = theirs.model.skip_alpha.state_dict(keep_vars=True)
    assert alphas.keys() == ours.model.skip_alpha.keys()
    for name, alpha in alphas.items():
        assert torch.equal(alpha, ours.model.skip_alpha[name])
        assert alpha.requires_grad == ours.config.skip_learned
    full = ours.logits(ours(TOKENS))
    same(theirs, ours)
    # a prompt, then token by token
    past = None
    for start, stop in [(0, 9), *((at, at + 1) for at in range(9, 20))]:
        out = theirs(TOKENS[:, start:stop], past_key_values=past, use_cache=True)
        past = out.past_key_values
        torch.testing.assert_close(out.logits, full[:, start:stop], **PARITY)
    # padding on either side
    for side in ("left", "right"):
        for length in (5, 13):
            mask = torch.ones(3, 20, dtype=torch.long)
            (mask[0, : 20 - length] if side == "left" else mask[0, length:]).zero_()
            tokens = TOKENS.clone()
            tokens[0, mask[0] == 1] = TOKENS[0, :length]
            got = theirs(tokens, attention_mask=mask).logits
            torch.testing.assert_close(got[0, mask[0] == 1], full[0, :length], **PARITY)
            torch.testing.assert_close(got[1:], full[1:], **PARITY)


@pytest.mark.parametrize("kind", ["llama", "exaone4", "solar"])
@torch.no_grad()
def test_generate(kind, tmp_path):
    ours = made(tmp_path, **KINDS[kind])
    theirs = remote(tmp_path)
    assert theirs.generation_config.eos_token_id == 3
    prompt = TOKENS[:, :7].clone()
    mask = torch.ones_like(prompt)
    prompt[0, :4], mask[0, :4] = 0, 0
    options = dict(attention_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=-1)
    got = theirs.generate(prompt, **options)
    assert torch.equal(got, theirs.generate(prompt, use_cache=False, **options))
    for row, blank in ((0, 4), (1, 0)):
        tokens = prompt[row, blank:]
        for _ in range(12):
            best = ours.logits(ours(tokens[None]))[0, -1].argmax()
            tokens = torch.cat([tokens, best[None]])
        assert torch.equal(got[row, blank:], tokens)


@pytest.mark.parametrize("kind", ROPES)
@torch.no_grad()
def test_scaled_positions(kind, tmp_path):
    kind, _, half = kind.partition(", ")
    scaling = RopeScaling(type=kind, **ROPES[f"{kind}, {half}" if half else kind])
    fields = {"rope_scaling": scaling, "max_position_embeddings": 16}
    if half:
        fields["partial_rotary_factor"] = 0.5
    ours = made(tmp_path / "a", **fields)
    theirs = remote(tmp_path / "a")
    for length in (6, 20, 6):  # shorter and longer than what dynamic and longrope ask for
        same(theirs, ours, TOKENS[:, :length])
    theirs.save_pretrained(tmp_path / "b")
    same(remote(tmp_path / "b"), ours)
    same(theirs, hf.load(tmp_path / "b"))


@pytest.mark.parametrize("kind", ["fixed alphas, tied", "biases, MTP", "exaone4", "jai", "solar"])
@torch.no_grad()
def test_out_again(kind, tmp_path):
    ours = made(tmp_path / "a", **KINDS[kind])
    theirs = remote(tmp_path / "a")
    theirs.save_pretrained(tmp_path / "b")
    assert (tmp_path / "b" / REMOTE).read_bytes() == (tmp_path / "a" / REMOTE).read_bytes()
    again = remote(tmp_path / "b")
    assert torch.equal(again(TOKENS).logits, theirs(TOKENS).logits)
    back = hf.load(tmp_path / "b")
    assert back.config == ours.config.model_copy(update={"mtp_modules": 0})
    state = ours.state_dict()
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@torch.no_grad()
def test_half_precision_and_shards(tmp_path):
    ours = made(tmp_path / "a", torch.bfloat16, **KINDS["solar"])
    hf.save(ours, tmp_path / "a", shard_bytes=20_000)
    theirs = remote(tmp_path / "a")
    assert theirs.dtype == torch.bfloat16 == theirs.model.skip_alpha.state_dict()["2"].dtype
    bias = theirs.model.layers[1].mlp.router.bias
    assert bias.dtype == torch.float32 and torch.equal(bias, ours.model.layers[1].mlp.router.bias)
    theirs.save_pretrained(tmp_path / "b")
    back = hf.load(tmp_path / "b", dtype=torch.bfloat16)
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name]), name


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training(checkpointing, tmp_path):
    ours = made(tmp_path, **KINDS["jai"])
    theirs = remote(tmp_path).train()
    if checkpointing:
        theirs.gradient_checkpointing_enable()
    theirs(TOKENS, labels=TOKENS).loss.backward()
    logits = ours.logits(ours(TOKENS))[:, :-1]
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), TOKENS[:, 1:].flatten()).backward()
    others = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(others[name].grad, weight.grad, rtol=1e-4, atol=1e-5, msg=name)


@torch.no_grad()
def test_what_users_of_transformers_ask_for(tmp_path):
    made(tmp_path, **KINDS["mixtral"])
    theirs = remote(tmp_path, attn_implementation="eager")
    out = theirs(TOKENS, output_hidden_states=True, output_attentions=True)
    assert len(out.hidden_states) == 5 and len(out.attentions) == 4
    last = theirs(TOKENS, logits_to_keep=1).logits
    torch.testing.assert_close(last, out.logits[:, -1:])
    embedded = theirs.get_input_embeddings()(TOKENS)
    torch.testing.assert_close(theirs(inputs_embeds=embedded).logits, out.logits)
    theirs.resize_token_embeddings(16)
    theirs.save_pretrained(tmp_path / "wider")
    assert hf.load(tmp_path / "wider").config.vocab_size == 16
    fresh = transformers.AutoModelForCausalLM.from_config(theirs.config, trust_remote_code=True)
    assert all(weight.isfinite().all() for weight in fresh.state_dict().values())
    assert fresh.state_dict()["model.skip_alpha.2"].item() == pytest.approx(0.7)


def test_every_field_of_ours_is_known_with_its_default(tmp_path):
    made(tmp_path)
    code = vars(sys.modules[type(remote(tmp_path)).__module__])
    ids = {"bos_token_id", "eos_token_id", "pad_token_id"}
    for ours, needed, others in (
        (ModelConfig, set(code["SIZES"]), code["OTHERS"]),
        (Experts, {"count", "chosen", "width"}, code["EXPERTS"]),
    ):
        fields = {name: each for name, each in ours.model_fields.items() if name not in ids}
        assert {name for name, each in fields.items() if each.is_required()} == needed
        assert {n: each.default for n, each in fields.items() if n not in needed} == others
    turned = RopeScaling.model_fields
    for name, value in code["ROPE"]["llama3"].items():
        assert turned[name].default == value


def test_a_field_of_tomorrow_is_refused(tmp_path):
    made(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    raw["endonym"]["a_field_of_tomorrow"] = 1
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="a_field_of_tomorrow"):
        remote(tmp_path)


def test_nobody_runs_it_unasked(tmp_path):
    ours = made(tmp_path)
    (tmp_path / REMOTE).write_text("raise SystemExit('ran')\n")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=False)
    assert hf.load(tmp_path).config == ours.config
    with pytest.raises(DataError, match="transformers cannot load"):
        hf.load(tmp_path, native=False)


def test_the_code_goes_with_the_class(tmp_path):
    ours = made(tmp_path)
    assert (tmp_path / REMOTE).exists()
    hf.save(ours, tmp_path, plain=True)
    assert not (tmp_path / REMOTE).exists()
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())
