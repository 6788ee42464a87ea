"""Distillation by standardized logits: their order and distances, whatever their size."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compression.distillation.logits import (
    centred,
    check_option,
    check_temperature,
    comparable,
    cross_entropy,
    divergence,
)


def standardize(logits: Tensor) -> Tensor:
    """Return logits (N, classes, ...) minus their mean, over their standard deviation, per position.

    Both are over the classes; a masked one (-inf) counts in neither and stays masked. Logits that are
    all one number become 0.

    >>> standardize(torch.tensor([[1.0, 3.0]])).round()
    tensor([[-1.,  1.]])
    """
    shown = logits != -torch.inf
    rest, norm, flat = centred(logits, shown, dim=1)
    deviation = norm.masked_fill(flat, 1) / shown.sum(1, keepdim=True, dtype=logits.dtype).sqrt()
    return (rest / deviation).masked_fill(flat, 0).masked_fill(~shown, -torch.inf)


def standardized_divergence(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float
) -> Tensor:
    """Return T^2 KL(teacher || student) of standardized logits over T, a mean over positions.

    Neither the size of the student's logits nor of the teacher's counts. Logits (N, classes, ...),
    labels (N, ...), ignored positions, masked classes and errors as in `distillation_loss`. Sun et
    al. 2024, arXiv:2403.01427, whose code divides the squares by one less than the classes for the
    deviation, where this divides by the classes.

    >>> student, teacher = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[10.0, 20.0, 40.0]])
    >>> loss = standardized_divergence(student, teacher, torch.tensor([2]), temperature=2.0)
    >>> round(loss.item(), 6)
    0.0
    """
    check_temperature(temperature)
    student, teacher, labels = comparable(student_logits, teacher_logits, labels)
    student, teacher = standardize(student) / temperature, standardize(teacher) / temperature
    return temperature**2 * divergence(student, teacher, labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standardized:
    """The student learns the teacher's logits up to their size: CE + `weight` soft part.

    For teachers whose logits are larger than a student of few weights can make them. The soft part is
    `standardized_divergence`.

    temperature  above 0, in standard deviations of the logits
    weight       above 0, of the soft part

    CompressionError for options out of these ranges. Sun et al. 2024, arXiv:2403.01427.

    >>> logits, labels = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([0])
    >>> loss = Standardized(temperature=2.0, weight=9.0)
    >>> bool(loss(logits, 3 * logits, labels) > loss(logits, -logits, labels))
    False
    """

    temperature: float = 2.0
    weight: float = 9.0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_temperature(self.temperature)
        check_option("weight", self.weight, lambda x: x > 0, "be above 0 and finite")

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
        soft = standardized_divergence(student, teacher, labels, temperature=self.temperature)
        return cross_entropy(student, labels, label_smoothing, hard) + self.weight * soft
