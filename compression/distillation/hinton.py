"""Distillation by softened probabilities."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from compression.distillation.logits import (
    as_labels,
    check_numbers,
    check_option,
    check_shapes,
    check_smoothing,
    check_temperature,
    comparable,
    cross_entropy,
    divergence,
)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
    hard: Tensor | None = None,
) -> Tensor:
    """Return 2 T^2 alpha KL(teacher_T || student_T) + (1 - alpha) CE(labels), a mean over positions.

    Logits (N, classes, ...) and labels (N, ...), as torch's cross-entropy takes them: a class per
    position, or the probabilities of all, in the shape of the logits. Positions with the label -100
    count in neither part, and a class that both networks mask (-inf) in neither sum. The loss is in
    float32 at least. Raises CompressionError for other shapes, labels without a logit, an empty batch
    and a teacher that is not finite; on a GPU numbers are not looked at, since each look waits.

    The loss of "Benchmarking of DNN compression techniques", figure 4, after Hinton et al. 2015
    (arXiv:1503.02531): T^2 keeps the gradient of the soft part at one size for every T. Its printed
    "- sum y log(1 - y^)" is read as the cross-entropy that its text names. alpha = 0 is the plain
    cross-entropy exactly. `hard`, another loss of the labels, takes the place of CE.

    >>> logits, labels = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([0])
    >>> distillation_loss(logits, logits, labels, temperature=4.0, alpha=1.0)
    tensor(0.)
    """
    _check(temperature, alpha)
    check_smoothing(label_smoothing)
    if alpha == 0:
        labels = as_labels(labels)
        check_shapes(student_logits, teacher_logits, labels)
        if student_logits.device.type == "cpu":
            check_numbers(student_logits, teacher_logits, labels, heard=False)
        if hard is not None:
            return hard
        return F.cross_entropy(student_logits, labels, label_smoothing=label_smoothing)
    student, teacher, labels = comparable(student_logits, teacher_logits, labels)
    soft = divergence(student / temperature, teacher / temperature, labels)
    taught = 2 * temperature**2 * alpha * soft
    if alpha == 1:  # not 0 times a hard part that may be infinite
        return taught
    return taught + (1 - alpha) * cross_entropy(student, labels, label_smoothing, hard)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hinton:
    """The student learns the teacher's probabilities at `temperature`, by `distillation_loss`.

    temperature  above 0: the higher, the more the classes count that the teacher rules out
    alpha        0..1, the teacher's share; the labels have the rest. At 0 the teacher does not run

    CompressionError for options out of these ranges. Hinton et al. 2015, arXiv:1503.02531.

    >>> logits, labels = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([0])
    >>> Hinton(temperature=4.0, alpha=1.0)(logits, logits, labels)
    tensor(0.)
    """

    temperature: float = 4.0
    alpha: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        _check(self.temperature, self.alpha)

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
        return distillation_loss(
            student,
            teacher,
            labels,
            temperature=self.temperature,
            alpha=self.alpha,
            label_smoothing=label_smoothing,
            hard=hard,
        )


def _check(temperature: float, alpha: float) -> None:
    check_temperature(temperature)
    name = "alpha, the teacher's share of the loss,"
    check_option(name, alpha, lambda x: 0 <= x <= 1, "lie in 0..1")
