"""The ranking loss by hand, its margin and centering, and TRL's figures."""

import math

import pytest
import torch

from endonym.methods.bradley_terry import bradley_terry


def scores():
    chosen = torch.tensor([1.0, 0.0, -2.0], requires_grad=True)
    rejected = torch.tensor([0.0, 0.0, 1.0], requires_grad=True)
    return chosen, rejected


def test_by_hand():
    # gaps 1, 0, -3: L = ln(1 + e^-1) + ln 2 + ln(1 + e^3); dL/dr_c = -sigmoid(-gap) = -dL/dr_r
    chosen, rejected = scores()
    loss = bradley_terry(chosen, rejected)
    loss.value.backward()
    wanted = sum(math.log1p(math.exp(-gap)) for gap in (1, 0, -3))
    assert loss.value.item() == pytest.approx(wanted, rel=1e-6) and loss.weight == 3
    slopes = [-1 / (1 + math.exp(gap)) for gap in (1, 0, -3)]
    assert chosen.grad.tolist() == pytest.approx(slopes, rel=1e-6)
    assert torch.equal(rejected.grad, -chosen.grad)
    # accuracy: one of three, equal scores are none; margin: mean gap
    assert loss.figures == pytest.approx(
        {"accuracy": 1 / 3, "margin": -2 / 3, "mean_reward": 0.0, "min_reward": -2, "max_reward": 1}
    )


def test_a_margin_is_a_shift_of_the_gap_and_centering_a_square():
    chosen, rejected = (part.detach() for part in scores())
    margins = torch.tensor([0.5, 0.0, 2.0])
    with_margin = bradley_terry(chosen, rejected, margins)
    assert with_margin.value == bradley_terry(chosen - margins, rejected).value
    assert with_margin.figures == bradley_terry(chosen, rejected).figures
    plain, centred = (bradley_terry(chosen, rejected, centering=c).value for c in (0.0, 0.1))
    assert (centred - plain).item() == pytest.approx(0.1 * (1 + 0 + 1), rel=1e-5)


def test_only_differences_count_without_centering():
    chosen, rejected = (part.detach() for part in scores())
    both = [bradley_terry(chosen + k, rejected + k).value.item() for k in (0, 5)]
    assert both[0] == pytest.approx(both[1], rel=1e-6)
    away = [bradley_terry(chosen + k, rejected + k, centering=0.1).value.item() for k in (0, 5)]
    assert away[1] > away[0] + 10


def test_far_scores_stay_finite_and_no_pair_is_no_loss():
    far = bradley_terry(torch.tensor([-1e4]), torch.tensor([1e4]))
    assert far.value.item() == pytest.approx(2e4)
    none = bradley_terry(torch.empty(0, requires_grad=True), torch.empty(0))
    assert none.value.item() == 0 and none.weight == 0 and none.figures == {}
    none.value.backward()


def test_trl_gives_the_same_loss_and_figures():
    """TRL's lines for the same scores, as its RewardTrainer.compute_loss states them."""
    draw = torch.Generator().manual_seed(1)
    chosen, rejected, margins = torch.randn(3, 9, generator=draw)
    loss = bradley_terry(chosen, rejected, margins.abs(), 0.01)
    wanted = -torch.nn.functional.logsigmoid(chosen - rejected - margins.abs()).mean()
    wanted = wanted + 0.01 * torch.mean((chosen + rejected) ** 2)
    assert (loss.value / loss.weight).item() == pytest.approx(wanted.item(), rel=1e-6)
    assert loss.figures["accuracy"] == pytest.approx((chosen > rejected).float().mean().item())
