"""Group-relative policies: the papers' identities, by enumeration and finite differences."""

import itertools
import math

import pytest
import torch

from endonym.methods.batch import Rows
from endonym.methods.grpo import Policy, advantages, clipped, grpo, k3, leave_one_out, ratio
from endonym.methods.logprobs import selected_logprobs

V, D, T = 7, 5, 6  # vocabulary, width, time
PLAIN = Policy()


def rewards(*groups):
    return torch.tensor(groups, dtype=torch.float64)


def made(seed=0, rows=4):
    """Hidden states, a head, and rows of answers in which some tokens are told and not drawn."""
    torch.manual_seed(seed)
    hidden = torch.randn(rows, T, D, dtype=torch.float64)
    head = torch.randn(V, D, dtype=torch.float64)
    labels = torch.randint(0, V, (rows, T))
    drawn = (torch.rand(rows, T) < 0.7).float()
    drawn[:, 0] = 1.0
    gains = torch.randn(rows, 1, dtype=torch.float64).expand(rows, T)
    return hidden, head, batch(labels, drawn, gains, torch.zeros(rows, T, dtype=torch.float64))


def batch(labels, weights, gains, sampled, share=None, **extra):
    ones = torch.ones_like(labels)
    return Rows(
        labels, labels, weights, ones, ones,
        {"advantage": gains, "share": weights if share is None else share, "sampled": sampled, **extra},
    )  # fmt: skip


def loss_of(hidden, head, rows, policy=PLAIN, cap=None):
    found = grpo(hidden, head, rows, policy, cap)
    return found.value / found.weight


# --- advantages --------------------------------------------------------------------------------


def test_by_hand():
    found, counted = advantages(rewards([1, 0, 0, 1], [2, 2, 2, 2]))
    # mean 1/2; unbiased std of (1, 0, 0, 1): sqrt(4 (1/4) / 3) = 0.57735
    wanted = rewards([0.5, -0.5, -0.5, 0.5]) / (math.sqrt(1 / 3) + 1e-6)
    assert torch.allclose(found[:1], wanted)
    assert (found[1] == 0).all() and counted.all()


@pytest.mark.parametrize("scale", ["std", "none", "batch"])
def test_advantages_of_a_group_sum_to_nothing(scale):
    torch.manual_seed(0)
    found, _ = advantages(torch.randn(9, 8, dtype=torch.float64), scale=scale)
    assert found.sum(1).abs().max() < 1e-9 and found.abs().max() > 0.1


def test_advantages_do_not_depend_on_the_rewards_scale_and_origin():
    torch.manual_seed(0)
    given = torch.randn(9, 8, dtype=torch.float64)
    plain, _ = advantages(given)
    moved, _ = advantages(3 * given + 7)
    assert torch.allclose(plain, moved, atol=1e-5)
    assert not torch.allclose(
        advantages(given, scale="none")[0], advantages(3 * given, scale="none")[0]
    )


def test_equal_rewards_give_exactly_nothing_whatever_their_mean_rounds_to():
    for value in (0.1, 1 / 3, 0.7, 1e-9, 12345.678):
        given = torch.full((1, 7), value)  # float32: the mean of seven is not the value
        for scale in ("std", "none", "batch"):
            assert (advantages(given, scale=scale)[0] == 0).all()


def test_leave_one_out_is_the_mean_of_the_others():
    given = rewards([1.0, 4.0, 2.5, -1.0])
    found = leave_one_out(given)
    for n in range(4):
        others = [float(given[0, m]) for m in range(4) if m != n]
        assert float(found[0, n]) == pytest.approx(float(given[0, n]) - sum(others) / 3)
    plain, _ = advantages(given, scale="none")
    assert torch.allclose(found, plain * 4 / 3) and found.sum().abs() < 1e-12


def test_what_could_not_be_judged_is_in_no_mean_and_weighs_nothing():
    nan = math.nan
    given = rewards([1.0, nan, 0.0, 0.0], [nan, nan, nan, 1.0], [nan] * 4)
    found, counted = advantages(given, given.isnan())
    alone, _ = advantages(rewards([1.0, 0.0, 0.0]))
    assert torch.equal(found[0, [0, 2, 3]], alone[0]) and found[0, 1] == 0
    assert counted.tolist() == [[True, False, True, True], [False] * 4, [False] * 4]
    assert not found.isnan().any() and (found[1:] == 0).all()


def test_the_batchs_deviation_is_over_all_that_was_judged():
    given = rewards([1.0, 3.0], [10.0, math.nan], [5.0, 5.0])
    found, _ = advantages(given, given.isnan(), "batch")
    deviation = torch.tensor([1.0, 3.0, 5.0, 5.0], dtype=torch.float64).std()
    assert found[0, 1] == pytest.approx(1.0 / (float(deviation) + 1e-6))


# --- the gradient at the sampler's policy ------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("aggregate", ["tokens", "sequences", "constant"])
def test_on_policy_the_gradient_is_reinforce(temperature, aggregate):
    """METHODS 1.1 (a): sum_i A_i / |o_i| sum_t grad log p, by finite differences of log p."""
    hidden, head, rows = made()
    drawn = rows.weights
    lengths = drawn.sum(1, keepdim=True)
    per_answer = (drawn / lengths).double()
    weights, share, count = {
        "tokens": (drawn.double(), drawn.double(), drawn.sum()),
        "sequences": (per_answer, per_answer, len(drawn)),
        "constant": (drawn.double() / 11, per_answer, len(drawn)),
    }[aggregate]
    gains = rows.extra["advantage"]
    rows = batch(rows.labels, weights, gains, rows.extra["sampled"], share)

    def wanted(head):  # the paper's sum, with log p where the loss has a ratio
        logprobs = torch.log_softmax(hidden @ head.T / temperature, -1)
        chosen = logprobs.gather(-1, rows.labels[..., None]).squeeze(-1)
        return -(weights * gains * chosen).sum() / count

    for old in (None, selected_logprobs(hidden, head, rows.labels, temperature=temperature)):
        here = rows if old is None else batch(rows.labels, weights, gains, old, share, old=old)
        free = head.clone().requires_grad_()
        loss_of(hidden, free, here, Policy(temperature=temperature)).backward()
        for place in itertools.product(range(V), range(D)):
            step = torch.zeros_like(head)
            step[place] = 1e-6
            slope = (wanted(head + step) - wanted(head - step)) / 2e-6
            assert float(free.grad[place]) == pytest.approx(float(slope), abs=1e-7)


def test_the_short_way_is_the_long_way():
    """surrogate() and selected_logprobs() with old = itself: value and both gradients, capped too."""
    hidden, head, rows = made()
    policy, grads = Policy(temperature=0.7), []
    for extra in ({}, {"old": selected_logprobs(hidden, head, rows.labels, 3.0, 0.7)}):
        here = Rows(
            rows.tokens,
            rows.labels,
            rows.weights,
            rows.segments,
            rows.positions,
            rows.extra | extra,
        )
        states, kernel = hidden.clone().requires_grad_(), head.clone().requires_grad_()
        found = grpo(states, kernel, here, policy, 3.0)
        found.value.backward()
        grads.append((found.value.detach(), states.grad, kernel.grad))
    for a, b in zip(*grads):
        assert torch.allclose(a, b, atol=1e-12)


def test_equal_rewards_have_no_gradient():
    hidden, head, rows = made()
    rows.extra["advantage"] = torch.zeros_like(rows.weights)
    free = head.clone().requires_grad_()
    found = grpo(hidden, free, rows, Policy())
    found.value.backward()
    assert (free.grad == 0).all() and found.weight == rows.weights.sum()


def test_an_answer_twice_as_long_counts_twice_under_dr_grpo_and_once_under_grpo():
    """METHODS 1.2: the same terms again in the second half."""
    hidden, head, rows = made(rows=1)
    twice = torch.cat([hidden, hidden], 1)
    both = lambda x: torch.cat([x, x], 1)  # noqa: E731
    values = {}
    for name in ("constant", "sequences"):
        found = []
        for states, double in ((hidden, lambda x: x), (twice, both)):
            drawn = double(rows.weights).double()
            share = drawn / drawn.sum()
            weights = drawn / 100 if name == "constant" else share
            here = batch(
                double(rows.labels), weights, double(rows.extra["advantage"]), torch.zeros_like(drawn), share
            )  # fmt: skip
            free = head.clone().requires_grad_()
            loss_of(states, free, here).backward()
            found.append(free.grad)
        values[name] = found
    assert torch.allclose(values["constant"][1], 2 * values["constant"][0])
    assert torch.allclose(values["sequences"][1], values["sequences"][0])


def test_dr_grpo_is_reinforce_without_bias():
    """METHODS 1.2: over all groups of a two-armed bandit its mean is (G - 1) / G grad E[r] / L."""
    size, longest = 3, 4
    logits = torch.tensor([0.3, -0.5], dtype=torch.float64)
    payoff = torch.tensor([1.0, 0.2], dtype=torch.float64)
    p = torch.softmax(logits, 0)
    mean = torch.zeros(2, dtype=torch.float64)
    for group in itertools.product(range(2), repeat=size):
        gains, _ = advantages(payoff[list(group)][None], scale="none")
        free = logits.clone().requires_grad_()
        new = torch.log_softmax(free, 0)[list(group)]
        gain = clipped(ratio(new, new.detach()), gains[0], Policy()).sum() / (size * longest)
        gain.backward()
        mean += free.grad * torch.prod(p[list(group)])
    free = logits.clone().requires_grad_()
    (torch.softmax(free, 0) @ payoff).backward()
    assert torch.allclose(mean, free.grad * (size - 1) / size / longest, atol=1e-12)


def test_the_token_mean_does_not_ask_which_answer_a_token_is_in():
    """METHODS 1.3: the same tokens as four answers of six or as one of twenty-four."""
    hidden, head, rows = made()
    flat = lambda x: x.reshape(1, -1, *x.shape[2:])  # noqa: E731
    losses = []
    for states, here in ((hidden, rows), (flat(hidden), rows.each(flat))):
        free = head.clone().requires_grad_()
        loss_of(states, free, here).backward()
        losses.append(free.grad)
    assert torch.allclose(*losses)


# --- the clip ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "log_ratio", "moves"),
    [
        (1.0, 0.5, False),
        (-1.0, -0.5, False),
        (-1.0, 0.5, True),
        (1.0, -0.5, True),
        (1.0, 0.1, True),
    ],
)
def test_the_clip_takes_the_gradient_where_it_would_go_too_far(gain, log_ratio, moves):
    """METHODS 1.1 (e), with bounds 0.8 and 1.24: e^0.5 = 1.65, e^-0.5 = 0.61, e^0.1 = 1.11."""
    new = torch.tensor(log_ratio, dtype=torch.float64, requires_grad=True)
    clipped(ratio(new, torch.zeros(())), torch.tensor(gain), Policy(0.2, 0.24)).backward()
    assert (new.grad != 0) == moves


def test_clip_higher_leaves_room_above_only():
    new = torch.tensor(math.log(1.22), requires_grad=True)
    for high, moves in ((0.2, False), (0.24, True)):
        new.grad = None
        clipped(ratio(new, torch.zeros(())), torch.tensor(1.0), Policy(0.2, high)).backward()
        assert (new.grad != 0) == moves


def test_the_dual_clip_bounds_the_loss_of_bad_answers():
    far = torch.tensor([math.log(10.0)])
    gain = torch.tensor([-1.0])
    assert float(clipped(ratio(far, torch.zeros(1)), gain, Policy())) == pytest.approx(-10)
    assert float(clipped(ratio(far, torch.zeros(1)), gain, Policy(dual=3.0))) == -3
    near = torch.tensor([math.log(1.5)])
    assert float(clipped(ratio(near, torch.zeros(1)), gain, Policy(dual=3.0))) == pytest.approx(
        -1.5
    )
    assert float(clipped(ratio(far, torch.zeros(1)), -gain, Policy(dual=3.0))) == pytest.approx(1.2)


def test_figures_say_what_the_clip_took(monkeypatch):
    hidden, head, rows = made()
    new = selected_logprobs(hidden, head, rows.labels)
    moved = torch.tensor([0.5, -0.5, 0.1, 0.0], dtype=torch.float64)[:, None].expand(4, T)
    gains = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)[:, None].expand(4, T)
    here = batch(rows.labels, rows.weights, gains, new - moved, old=new - moved)
    found = grpo(hidden, head, here, Policy(0.2, 0.24)).figures
    count = rows.weights.sum(1)
    assert float(found["clip_ratio/high_mean"]) == pytest.approx(float(count[0] / count.sum()))
    assert float(found["clip_ratio/low_mean"]) == pytest.approx(float(count[1] / count.sum()))
    assert float(found["clip_ratio/region_mean"]) == pytest.approx(
        float(count[:2].sum() / count.sum())
    )
    drift = (moved.abs() * rows.weights).sum() / count.sum()
    assert float(found["sampling/sampling_logp_difference/mean"]) == pytest.approx(float(drift))


# --- KL and importance -------------------------------------------------------------------------


def test_k3_is_positive_and_its_mean_is_the_divergence():
    """METHODS 1.1 (d), by enumeration of five tokens."""
    torch.manual_seed(0)
    new, reference = torch.log_softmax(torch.randn(2, 5, dtype=torch.float64), -1)
    found = k3(new, reference)
    assert (found > 0).all() and (k3(new, new) == 0).all()
    divergence = (new.exp() * (new - reference)).sum()
    assert float((new.exp() * found).sum()) == pytest.approx(float(divergence), abs=1e-12)


def test_beta_adds_the_divergence_of_every_drawn_token():
    hidden, head, rows = made()
    reference = selected_logprobs(hidden, head, rows.labels) + 0.3
    here = Rows(rows.tokens, rows.labels, rows.weights, rows.segments, rows.positions,
                rows.extra | {"reference": reference})  # fmt: skip
    plain, held = (loss_of(hidden, head, here, Policy(beta=beta)) for beta in (0.0, 0.5))
    added = math.exp(0.3) - 0.3 - 1
    assert float(held - plain) == pytest.approx(0.5 * added)
    assert float(grpo(hidden, head, here, Policy(beta=0.5)).figures["kl"]) == pytest.approx(added)
    rows.extra["advantage"] = torch.zeros_like(rows.weights)  # also of answers with no advantage
    here = Rows(rows.tokens, rows.labels, rows.weights, rows.segments, rows.positions,
                rows.extra | {"reference": reference})  # fmt: skip
    assert float(loss_of(hidden, head, here, Policy(beta=0.5))) == pytest.approx(0.5 * added)


def test_equal_samplers_need_no_correction():
    hidden, head, rows = made()
    same = selected_logprobs(hidden, head, rows.labels)
    here = batch(rows.labels, rows.weights, rows.extra["advantage"], same)
    plain, corrected = (grpo(hidden, head, here, Policy(cap=cap)) for cap in (None, 2.0))
    assert float(corrected.value) == pytest.approx(float(plain.value))
    assert float(corrected.figures["sampling/importance_sampling_ratio/mean"]) == pytest.approx(1.0)


def test_importance_sampling_is_right_without_a_cap_and_bounded_with_one():
    """METHODS 1.5: over all answers of one token drawn by q, weighted, the gradient is p's own."""
    torch.manual_seed(1)
    hidden = torch.randn(1, 1, D, dtype=torch.float64)
    head = torch.randn(V, D, dtype=torch.float64)
    q = torch.log_softmax(torch.randn(V, dtype=torch.float64), -1)
    payoff = torch.randn(V, dtype=torch.float64)

    def mean(cap):
        total, largest = torch.zeros_like(head), 0.0
        for token in range(V):
            one = torch.full((1, 1), 1.0, dtype=torch.float64)
            here = batch(torch.tensor([[token]]), one, one * payoff[token], one * q[token])
            free = head.clone().requires_grad_()
            (-grpo(hidden, free, here, Policy(cap=cap)).value).backward()
            largest = max(largest, float(free.grad.abs().max()))
            total += free.grad * q[token].exp()
        return total, largest

    free = head.clone().requires_grad_()
    (torch.softmax(hidden[0, 0] @ free.T, -1) @ payoff).backward()
    assert torch.allclose(mean(1e9)[0], free.grad, atol=1e-12)
    slopes = hidden.abs().max()  # |grad log p| of one token's row of the head is at most |h|
    assert mean(0.5)[1] <= 0.5 * payoff.abs().max() * slopes + 1e-12
    assert not torch.allclose(mean(0.5)[0], free.grad, atol=1e-3)


# --- masks -------------------------------------------------------------------------------------


def test_what_was_told_is_not_learnt():
    """Other target ids where the tools spoke change nothing (METHODS 3b.5)."""
    hidden, head, rows = made()
    told = rows.weights == 0
    assert told.any()
    grads = []
    for labels in (rows.labels, torch.where(told, (rows.labels + 1) % V, rows.labels)):
        here = Rows(rows.tokens, labels, rows.weights, rows.segments, rows.positions, rows.extra)
        free = head.clone().requires_grad_()
        found = grpo(hidden, free, here, Policy())
        found.value.backward()
        grads.append((found.value.detach(), free.grad))
    assert torch.equal(grads[0][0], grads[1][0]) and torch.equal(grads[0][1], grads[1][1])


def test_ratios_stay_numbers():
    assert torch.isfinite(ratio(torch.tensor([0.0, -500.0]), torch.tensor([-500.0, 0.0]))).all()
    assert torch.isfinite(k3(torch.tensor([-500.0]), torch.tensor([0.0]))).all()
