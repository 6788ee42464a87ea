"""Distillation in two parts: how sure the teacher is of the label, and what it says of the others."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.distillation.logits import (
    check_option,
    check_temperature,
    comparable,
    cross_entropy,
    surprise,
)
from compression.errors import CompressionError
from compression.training.checks import IGNORED, describe


def decoupled_parts(student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the target-class and the non-target-class part of KL(teacher || student) per position.

    Of logits (N, classes, ...), divided by the temperature, and class labels (N, ...): the first part
    is the divergence of the pair (p of the label, p of all others), the second one that of the others
    among themselves. With p of the teacher, KL = first + (1 - p of the label) second. Both are in
    logarithms: they stay finite and right where p of the label rounds to 1.

    >>> logits, labels = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([0])
    >>> decoupled_parts(logits, logits, labels)
    (tensor([0.]), tensor([0.]))
    """
    index = labels.masked_fill(labels == IGNORED, 0).unsqueeze(1)
    target = torch.zeros_like(teacher, dtype=torch.bool).scatter(1, index, True)
    masked = teacher == -torch.inf
    alone = (target | masked).all(1, keepdim=True)  # nothing is said of others

    def split(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log p of the label, of all others, and of each other among them."""
        others = logits.masked_fill(target, -torch.inf).masked_fill(alone, 0)
        total = logits.logsumexp(1, keepdim=True)
        # The last not as a difference of the first ones: large numbers would cancel.
        rest = others.logsumexp(1, keepdim=True) - total
        return logits.gather(1, index) - total, rest, F.log_softmax(others, dim=1)

    (label, rest, among), (teachers, others, theirs) = split(student), split(teacher)
    first = surprise(label, teachers, teachers == -torch.inf) + surprise(rest, others, alone)
    second = surprise(among, theirs, target | alone | masked).sum(1)
    return first.squeeze(1), second


def decoupled_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """Return T^2 (alpha target-class part + beta non-target-class part), a mean over positions.

    In Hinton's divergence the second part counts by how unsure the teacher is of the label, so that
    a good teacher says little of the other classes; here it counts by `beta`. Logits (N, classes,
    ...), labels (N, ...), ignored positions, masked classes and errors as in `distillation_loss`, but
    labels are classes. Zhao et al. 2022, arXiv:2203.08679.

    >>> student, teacher = torch.tensor([[5.0, 2.0, 0.0]]), torch.tensor([[90.0, 0.0, 1.0]])
    >>> sure = {"temperature": 1.0, "alpha": 0.0}
    >>> loss = decoupled_divergence(student, teacher, torch.tensor([0]), beta=1.0, **sure)
    >>> round(loss.item(), 3)  # e^90 beside e^0 and e^1 says something of them
    1.007
    """
    check_temperature(temperature)
    if labels.is_floating_point():
        raise CompressionError(
            f"Decoupled needs a class per position, which its target-class part is of, found labels "
            f"{describe(labels)}; Hinton, Standardized and Dist take probabilities"
        )
    student, teacher, labels = comparable(student_logits, teacher_logits, labels)
    first, second = decoupled_parts(student / temperature, teacher / temperature, labels)
    ignored = labels == IGNORED
    total = (alpha * first + beta * second).masked_fill(ignored, 0).sum()
    return temperature**2 * total / (~ignored).sum()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoupled:
    """The student learns of the classes beside the label however sure the teacher is: CE + soft part.

    The soft part is `decoupled_divergence`. It is large: the paper raises it from 0 in the first
    epochs; `warmup` of the recipe raises the learning rate.

    temperature  above 0
    alpha, beta  0 or more: weights of the target-class and of the non-target-class part

    CompressionError for options out of these ranges. Zhao et al. 2022, arXiv:2203.08679.

    >>> logits, labels = torch.tensor([[9.0, 0.0, 1.0]]), torch.tensor([0])
    >>> loss = Decoupled(temperature=4.0, alpha=1.0, beta=8.0)
    >>> bool(loss(logits, logits, labels) < loss(logits, logits[:, [0, 2, 1]], labels))
    True
    """

    temperature: float = 4.0
    alpha: float = 1.0
    beta: float = 8.0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_temperature(self.temperature)
        for name in ("alpha", "beta"):
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
        soft = decoupled_divergence(
            student,
            teacher,
            labels,
            temperature=self.temperature,
            alpha=self.alpha,
            beta=self.beta,
        )
        return cross_entropy(student, labels, label_smoothing, hard) + soft
