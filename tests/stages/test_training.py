"""The objective of pre-training: plain models as before, experts balanced, further tokens predicted."""

import pytest
import torch

from endonym.methods.batch import Rows
from endonym.methods.nll import nll
from endonym.model import hf
from endonym.model.config import ModelConfig
from endonym.model.experts import selection_biases
from endonym.stages.training import BalanceConfig, NextTokens

TOKENS = torch.arange(24).view(2, 12) % 11


def rows():
    segments = torch.ones_like(TOKENS)
    segments[1, 9:] = 0
    return Rows(
        tokens=TOKENS,
        labels=TOKENS.roll(-1, 1),
        weights=segments.float(),
        positions=torch.arange(12).expand(2, 12),
        segments=segments,
    )


def model(**more):
    return hf.new(
        ModelConfig.read(
            {
                "vocab_size": 11, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
                "num_attention_heads": 2, **more,
            },
            "test",
        ),
        0,
    )  # fmt: skip


EXPERTS = {"count": 4, "chosen": 1, "width": 8, "router": "sigmoid"}


def test_a_plain_model_learns_the_next_token_alone():
    lm, given = model(), rows()
    objective = NextTokens(BalanceConfig(), 0.05)
    loss = objective(lm, given)
    hidden = lm(given.tokens, positions=given.positions, segments=given.segments)
    assert torch.equal(loss.value, nll(hidden, lm.head, given.labels, given.weights).value)
    assert loss.figures == {}
    objective.end_step(lm, True)


def test_selection_biases_follow_the_load_of_the_whole_step():
    lm, given = model(experts=EXPERTS), rows()
    objective = NextTokens(BalanceConfig(bias_rate=1e-3), 0.05)
    for part in given.split(1):
        figures = objective(lm, part).figures
    assert 0 <= figures["load_entropy"] <= 1 and figures["load_max"] >= 1
    loads = {layer: load.clone() for layer, load in objective.loads.items()}
    assert all(int(load.sum()) == 21 for load in loads.values()), "padding has no vote"
    objective.end_step(lm, True)
    for layer, bias in selection_biases(lm).items():
        wanted = 1e-3 * torch.sign(loads[layer].double().mean() - loads[layer])
        torch.testing.assert_close(bias, wanted.float())
    assert objective.loads == {}


def test_a_skipped_step_moves_no_bias():
    lm = model(experts=EXPERTS)
    objective = NextTokens(BalanceConfig(), 0.05)
    objective(lm, rows())
    objective.end_step(lm, False)
    assert all(not bias.any() for bias in selection_biases(lm).values()) and not objective.loads


def test_balance_losses_reach_the_router_and_scale_with_their_coefficients():
    lm = model(experts=EXPERTS)
    plain = NextTokens(BalanceConfig(by_sequence=0), 0.05)(lm, rows()).value
    more = NextTokens(BalanceConfig(whole=0.5, by_sequence=0), 0.05)(lm, rows()).value
    twice = NextTokens(BalanceConfig(whole=1.0, by_sequence=0), 0.05)(lm, rows()).value
    assert more > plain
    torch.testing.assert_close(twice - plain, 2 * (more - plain))


@pytest.mark.parametrize("weight, changes", [(0.0, False), (0.3, True)])
def test_further_tokens_are_predicted_by_their_weight(weight, changes):
    lm = model(mtp_modules=1)
    plain = NextTokens(BalanceConfig(), 0.0)(lm, rows())
    loss = NextTokens(BalanceConfig(), weight)(lm, rows())
    assert (loss.value > plain.value) == changes and ("mtp" in loss.figures) == changes


def test_the_balance_within_rows_does_not_depend_on_how_a_step_is_split():
    given = rows()
    sums = []
    for size in (2, 1):
        lm = model(experts={**EXPERTS, "router": "softmax"})
        objective = NextTokens(BalanceConfig(by_sequence=0.5), 0.05)
        parts = [objective(lm, part) for part in given.split(size)]
        sum(part.value for part in parts).backward()
        router = lm.model.layers[0].mlp.router.weight.grad
        sums.append((float(sum(part.value for part in parts).detach()), router))
    assert sums[0][0] == pytest.approx(sums[1][0], rel=1e-6)
    torch.testing.assert_close(sums[0][1], sums[1][1], rtol=1e-4, atol=1e-6)
