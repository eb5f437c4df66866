"""Distillation of a teacher's whole next-token distribution, on answers of either model or of the data.

Shapes: B rows, T time, D width, V vocabulary.
"""

from dataclasses import replace

from torch import Tensor

from endonym.methods.batch import Loss
from endonym.methods.divergence import kl
from endonym.methods.nll import nll


def distill(
    student_hidden: Tensor,
    student_head: Tensor,
    teacher_hidden: Tensor,
    teacher_head: Tensor,
    labels: Tensor,
    weights: Tensor,
    given: Tensor | None = None,
    *,
    cross_entropy: float = 0.0,
    beta: float = 0.0,
    temperature: float = 1.0,
    top_k: int | None = None,
    tail: bool = False,
    caps: tuple[float | None, float | None] = (None, None),
) -> Loss:
    """The weighted sum over positions of D(P || Q) and, of answers that the data gave, of - log Q(label).

        L = sum_t w_t D( P_t || Q_t )  -  c sum_t g_t log Q_t( y_t )

    GKD, arXiv:2306.13649, algorithm 1: y is drawn from the student or taken from the data, which is
    the rollouts' affair (rollouts/distilled.py), and nothing flows through its drawing. D is
    methods/divergence.kl's, whose arguments these are. The second term is Typhoon-S's
    crossentropy_weight c (0 as released); given g [B, T]: the weights of answers from the data, 0 on
    what a student has drawn, which must not be taught to repeat itself.

    student_hidden [B, T, D], student_head [V, D], teacher's likewise of a width of its own, labels and
    weights [B, T]. Figures: divergence (per weight), cross_entropy (per weight of the whole step).
    """
    loss = kl(
        student_hidden, student_head, teacher_hidden, teacher_head, weights,
        beta, temperature, caps=caps, top_k=top_k, tail=tail,
    )  # fmt: skip
    return with_labels(loss, student_hidden, student_head, labels, given, cross_entropy, caps[0])


def with_labels(
    loss: Loss,
    hidden: Tensor,
    head: Tensor,
    labels: Tensor,
    given: Tensor | None,
    cross_entropy: float,
    cap: float | None,
) -> Loss:
    """A divergence with the second term of distill() added, whose arguments these are."""
    if not cross_entropy:
        return loss
    assert given is not None, "cross-entropy needs to know which answers the data gave"
    other = nll(hidden, head, labels, given, cap=cap)
    weight = float(loss.weight) or 1.0
    figures = {
        "divergence": loss.value.item() / weight,
        "cross_entropy": other.value.item() / weight,
    }
    return replace(loss, value=loss.value + cross_entropy * other.value, figures=figures)
