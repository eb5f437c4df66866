"""GRPO with injected text: what b is, and that both terms are means of their own, however rows are split."""

import math

import pytest
import torch

from endonym.methods.batch import Rows
from endonym.methods.grpo import Policy, grpo
from endonym.methods.ink_grpo import injects, ink_grpo, text_scale

V, D, T = 7, 5, 6
POLICY = Policy(0.2, 0.24, temperature=0.7)


def made(lmbda, gains=True):
    """Hidden states [6, T, D], a head, rows of four answers and two texts weighed by text_scale, and the
    text's own weights."""
    torch.manual_seed(0)
    hidden = torch.randn(6, T, D, dtype=torch.float64)
    head = torch.randn(V, D, dtype=torch.float64)
    labels = torch.randint(0, V, (6, T))
    text = torch.zeros(6, T, dtype=torch.bool)
    text[4:] = True
    drawn = (torch.rand(6, T) < 0.7).double() * ~text
    learnt = torch.rand(6, T).double() * text  # weights need not be 0 or 1
    share = float(drawn.sum()) if gains else 0.0
    factor, of_share = text_scale(lmbda, share, float(learnt.sum()))
    rows = Rows(
        labels, labels, (drawn if gains else 0 * drawn) + factor * learnt,
        torch.ones_like(labels), torch.ones_like(labels),
        {
            "advantage": torch.randn(6, 1, dtype=torch.float64).expand(6, T) * ~text,
            "share": (drawn if gains else 0 * drawn) + of_share * learnt,
            "sampled": torch.zeros(6, T, dtype=torch.float64),
            "text": text,
        },
    )  # fmt: skip
    return hidden, head, rows, learnt


def gradient(hidden, head, parts, loss):
    """As the loop makes it: the sum of values over the sum of weights."""
    free = head.clone().requires_grad_()
    weight = 0.0
    for part in parts:
        found = loss(hidden[part], free, part)
        found.value.backward()
        weight += float(found.weight)
    return free.grad / weight


def terms(hidden, head, rows, learnt):
    """grad L_GRPO and grad L_CE, each by itself and plainly."""
    free = head.clone().requires_grad_()
    answers = rows.each(lambda x: x[:4])
    found = grpo(hidden[:4], free, answers, POLICY)
    (found.value / found.weight).backward()
    again = head.clone().requires_grad_()
    logprobs = torch.log_softmax(hidden @ again.T, -1).gather(-1, rows.labels[..., None])[..., 0]
    (-(learnt * logprobs).sum() / learnt.sum()).backward()
    return free.grad, again.grad


@pytest.mark.parametrize(
    "split", [[slice(0, 6)], [slice(n, n + 1) for n in range(6)], [slice(3, 6), slice(0, 3)]]
)
def test_the_gradient_is_grpos_and_lambda_times_the_texts(split):
    """METHODS 3b.5; the text at temperature 1, the answers at theirs; whatever stands in which part."""
    hidden, head, rows, learnt = made(0.3)
    policy, text = terms(hidden, head, rows, learnt)
    found = gradient(
        hidden, head, split, lambda h, w, part: ink_grpo(h, w, rows.each(lambda x: x[part]), POLICY)
    )
    assert torch.allclose(found, policy + 0.3 * text, atol=1e-12)
    assert text.abs().max() > 1e-2 and policy.abs().max() > 1e-2


def test_answers_that_teach_nothing_leave_lambda_times_the_text():
    hidden, head, rows, learnt = made(0.3, gains=False)
    _, text = terms(hidden, head, rows, learnt)
    found = gradient(hidden, head, [slice(0, 6)], lambda h, w, part: ink_grpo(h, w, rows, POLICY))
    assert torch.allclose(found, 0.3 * text, atol=1e-12)
    hidden, head, rows, learnt = made(0.3)
    rows.extra["advantage"] = torch.zeros(6, T, dtype=torch.float64)
    found = gradient(hidden, head, [slice(0, 6)], lambda h, w, part: ink_grpo(h, w, rows, POLICY))
    assert torch.allclose(found, 0.3 * text, atol=1e-12)


def test_without_text_it_is_grpo_bit_for_bit():
    hidden, head, rows, _ = made(0.3)
    answers = rows.each(lambda x: x[:4])
    del answers.extra["text"]
    grads = []
    for method in (grpo, ink_grpo):
        free = head.clone().requires_grad_()
        found = method(hidden[:4], free, answers, POLICY)
        found.value.backward()
        grads.append((free.grad, found.value.detach(), found.weight))
    assert all(torch.equal(a, b) for a, b in zip(*grads))


def test_the_figures_tell_the_terms_apart():
    hidden, head, rows, learnt = made(0.3)
    found = ink_grpo(hidden, head, rows, POLICY)
    logprobs = torch.log_softmax(hidden @ head.T, -1).gather(-1, rows.labels[..., None])[..., 0]
    said = -(learnt * logprobs).sum() / learnt.sum()
    whole = found.value / found.weight
    assert float((whole - found.figures["loss/policy"]) / 0.3) == pytest.approx(float(said))


def test_b_is_a_function_of_seed_and_step():
    drawn = [injects(3, step, 0.6) for step in range(4000)]
    assert drawn == [injects(3, step, 0.6) for step in range(4000)]
    assert drawn != [injects(4, step, 0.6) for step in range(4000)]
    assert abs(sum(drawn) / 4000 - 0.6) < 3 * math.sqrt(0.6 * 0.4 / 4000)
    assert all(injects(0, step, 1.0) for step in range(500))
    assert not any(injects(0, step, 0.0) for step in range(500))
