"""Operations of a step: by hand, as the budget has them, and what a token does not pass left out."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from endonym.methods.batch import Rows
from endonym.model.budget import flops_per_token
from endonym.model.config import FULL, SLIDING, Experts, ModelConfig
from endonym.model.decoder import Decoder
from endonym.train.work import Work, peak
from train.drill import Tiny

SIZES = dict(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
KINDS = {
    "plain": {},
    "tied": dict(tie_word_embeddings=True),
    "windows": dict(sliding_window=4, layer_types=[SLIDING, FULL]),
    "experts": dict(experts=Experts(count=8, chosen=2, width=12, shared=1)),
    "MTP": dict(mtp_modules=1),
}


def document(length, padding=0):
    """One row: a document and padding."""
    shape = torch.arange(length + padding)[None]
    here = (shape < length).long()
    return Rows(shape, shape, here.float(), here, shape * here)


def decoder(**more):
    with torch.device("meta"):
        return Decoder(ModelConfig(**SIZES, **more))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mtp", [False, True])
def test_our_models_take_what_the_budget_says(kind, mtp):
    model = decoder(**KINDS[kind])
    work = Work(model, mtp=mtp)
    wanted = 20 * flops_per_token(model.config, 20, mtp=mtp) + 7 * flops_per_token(
        model.config, 7, mtp=mtp
    )
    assert work.of([document(20, padding=4), document(7)]) == pytest.approx(wanted)


def test_experts_that_a_token_does_not_pass_are_no_work():
    model = decoder(**KINDS["experts"])
    every = sum(p.numel() for p in model.parameters()) - 64 * 16
    unused = 2 * (8 - 2) * 3 * 16 * 12
    assert Work(model).per_token == 6 * (every - unused)


def test_a_foreign_model_counts_all_but_its_table():
    model = Tiny()
    total = 13 * 8 + 8 + 8 + 64 + 8
    assert Work(model).per_token == 6.0 * total
    # 6 tokens that see 1 .. 6 keys: 21, through one layer of two heads of four
    assert Work(model).of([document(6)]) == 6 * 6.0 * total + 21 * 12.0 * 2 * 4
    model.config = SimpleNamespace(**{**vars(model.config), "tie_word_embeddings": False})
    model.lm_head = nn.Linear(8, 13, bias=False)
    assert Work(model).per_token == 6.0 * total  # the head counts, the table does not


def test_no_peak_where_it_is_not_known():
    assert peak(torch.device("cpu"), torch.bfloat16) is None
