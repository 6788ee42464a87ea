"""Distillation by correlation: the teacher's preferences, not its numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.distillation.logits import (
    centred,
    check_option,
    check_temperature,
    comparable,
    cross_entropy,
)
from compression.training.checks import IGNORED


def pearson_distance(x: Tensor, y: Tensor, shown: Tensor, *, dim: int) -> Tensor:
    """Return 1 - Pearson's correlation of x and y (rows, columns) along `dim`, a mean over the rest.

    What is not `shown` counts nowhere. Lines where y is one number have no correlation and are left
    out; where only x is, it is taken as 0, without a gradient.

    >>> x = torch.tensor([[1.0, 2.0, 4.0]])
    >>> pearson_distance(x, 5 * x + 1, torch.ones(1, 3, dtype=torch.bool), dim=1) < 1e-6
    tensor(True)
    """
    (x, norm_x, flat_x), (y, norm_y, flat_y) = (centred(t, shown, dim=dim) for t in (x, y))
    norms = norm_x.masked_fill(flat_x, 1) * norm_y.masked_fill(flat_y, 1)
    correlation = ((x * y).sum(dim, keepdim=True) / norms).masked_fill(flat_x, 0)
    return (1 - correlation).masked_fill(flat_y, 0).sum() / (~flat_y).sum().clamp_min(1)


def correlation_distance(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    beta: float,
    gamma: float,
) -> Tensor:
    """Return T^2 (beta inter-class + gamma intra-class distance) of the probabilities at T.

    The first is 1 - Pearson's correlation over the classes of a position, a mean over positions; the
    second that over the positions of the batch of a class, a mean over classes. Logits (N, classes,
    ...), labels (N, ...), ignored positions and errors as in `distillation_loss`; a class that both
    networks mask (-inf) at a position counts nowhere there. What is one number for the teacher (one
    position alone, one class) has no correlation and is left out. Huang et al. 2022,
    arXiv:2205.10536.

    >>> logits, labels = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]]), torch.tensor([0, 1])
    >>> options = {"temperature": 4.0, "beta": 2.0, "gamma": 2.0}
    >>> round(correlation_distance(logits, logits, labels, **options).item(), 4)
    0.0
    """
    check_temperature(temperature)
    student, teacher, labels = comparable(student_logits, teacher_logits, labels)
    shown = (student != -torch.inf) | (teacher != -torch.inf)
    if not labels.is_floating_point():
        shown = shown & (labels != IGNORED).unsqueeze(1)
    flat = [
        x.movedim(1, -1).flatten(0, -2)
        for x in (
            F.softmax(student / temperature, dim=1),
            F.softmax(teacher / temperature, dim=1),
            shown,
        )
    ]
    inter, intra = (pearson_distance(*flat, dim=dim) for dim in (1, 0))
    return temperature**2 * (beta * inter + gamma * intra)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dist:
    """The student learns which classes and which images the teacher prefers: CE + soft part.

    For teachers much stronger than the student, whose probabilities it cannot match. The soft part is
    `correlation_distance`; its second correlation is over a batch, which wants some images.

    temperature  above 0; the paper takes 4 on CIFAR-100 and 1 on ImageNet
    beta, gamma  0 or more: weights of the inter-class and of the intra-class part

    CompressionError for options out of these ranges. Huang et al. 2022, arXiv:2205.10536.

    >>> logits, labels = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]]), torch.tensor([0, 1])
    >>> bool(Dist()(logits, logits, labels) < Dist()(logits, -logits, labels))
    True
    """

    temperature: float = 4.0
    beta: float = 2.0
    gamma: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_temperature(self.temperature)
        for name in ("beta", "gamma"):
            check_option(name, getattr(self, name), lambda x: x >= 0, "be 0 or more and finite")

    def __call__(
        self,
        student: Tensor,
        teacher: Tensor,
        labels: Tensor,
        *,
        label_smoothing: float = 0.0,
        hard: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of logits (N, classes, ...) and labels (N, ...); `hard` replaces the CE."""
        soft = correlation_distance(
            student,
            teacher,
            labels,
            temperature=self.temperature,
            beta=self.beta,
            gamma=self.gamma,
        )
        return cross_entropy(student, labels, label_smoothing, hard) + soft
