"""Logits of a student and its teacher: what is asked of them, and what their losses share."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.errors import CompressionError, UnsupportedTypeError
from compression.training import check_labels
from compression.training.checks import IGNORED, describe


def check_option(name: str, value: object, fits: Callable[[float], bool], wanted: str) -> None:
    """Refuse a number that is not finite or does not fit."""
    if not isinstance(value, int | float) or not math.isfinite(value) or not fits(value):
        raise CompressionError(f"{name} must {wanted}, found {value!r}")


def check_temperature(temperature: object) -> None:
    """Refuse what is no temperature."""
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise CompressionError(
            f"temperature must be above 0 and finite, found {temperature!r}; 1 to 10 is usual"
        )


def check_smoothing(label_smoothing: object) -> None:
    """Refuse what is no fraction."""
    check_option("label_smoothing", label_smoothing, lambda x: 0 <= x <= 1, "lie in 0..1")


def comparable(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (N, classes, ...) in float32 at least, and labels (N, ...) as torch takes them.

    Raises CompressionError for shapes that do not go together, labels without a logit, an empty batch
    and a teacher that is not finite; on a GPU numbers are not looked at, since each look waits.
    """
    labels = as_labels(labels)
    check_shapes(student_logits, teacher_logits, labels)
    if student_logits.device.type == "cpu":
        check_numbers(student_logits, teacher_logits, labels)
    dtype = torch.promote_types(student_logits.dtype, teacher_logits.dtype)
    dtype = torch.promote_types(dtype, torch.float32)  # T^2 leaves the range of halves
    return student_logits.to(dtype), teacher_logits.to(dtype), labels


def as_labels(labels: Tensor) -> Tensor:
    """Return class labels of any integers as int64; probabilities as they are."""
    return labels if labels.is_floating_point() else labels.long()


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float, hard: Tensor | None = None
) -> Tensor:
    """Return what the labels alone teach, in float32 at least: `hard` where it is given."""
    check_smoothing(label_smoothing)
    if hard is not None:
        return hard
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, as_labels(labels), label_smoothing=label_smoothing)


def divergence(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Return KL(teacher || student) of logits (N, classes, ...), its mean over positions."""
    student, teacher = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    silent = teacher == -torch.inf
    count: Tensor | float = teacher.numel() / teacher.shape[1]
    if not labels.is_floating_point():
        ignored = labels == IGNORED
        silent, count = silent | ignored.unsqueeze(1), (~ignored).sum().to(teacher.dtype)
    return surprise(student, teacher, silent).sum() / count


def surprise(student: Tensor, teacher: Tensor, silent: Tensor) -> Tensor:
    """Return p (log p - log q) of the logarithms log q and log p of student and teacher.

    What the teacher gives no probability adds nothing: p log p goes to 0 with p.
    """
    return F.kl_div(
        student.masked_fill(silent, 0),
        teacher.masked_fill(silent, 0),
        reduction="none",  # "mean" would divide by the classes too
        log_target=True,  # logarithms of the teacher: no 0 log 0 at a low temperature
    )


def centred(x: Tensor, shown: Tensor, *, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return `x` minus its mean along `dim`, the norm of that, and where `x` is one number there.

    What is not `shown` counts nowhere and is 0. All is in units of the largest number along `dim`,
    so that no square is lost; the two last keep `dim`.
    """
    x = x.masked_fill(~shown, 0)
    tiny, eps = torch.finfo(x.dtype).tiny, torch.finfo(x.dtype).eps
    x = x / x.detach().abs().amax(dim, keepdim=True).clamp_min(tiny)
    mean = x.sum(dim, keepdim=True) / shown.sum(dim, keepdim=True).clamp_min(1)
    rest = (x - mean).masked_fill(~shown, 0)
    norm = rest.norm(dim=dim, keepdim=True)
    # What rounding leaves of a constant has no direction: its gradient would be noise over nothing.
    return rest, norm, norm <= 8 * eps * x.detach().norm(dim=dim, keepdim=True)


def check_shapes(student: Tensor, teacher: Tensor, labels: Tensor) -> None:
    """Refuse logits and labels that do not go together."""
    for name, logits in (("student", student), ("teacher", teacher)):
        if not logits.is_floating_point():
            raise UnsupportedTypeError(
                f"the {name}'s logits: expected floating-point numbers, found {describe(logits)}"
            )
    if student.ndim < 2 or not student.numel():
        raise CompressionError(
            f"the student's logits: expected (N, classes, ...) and at least one position, found "
            f"{describe(student)}"
        )
    if teacher.shape != student.shape:
        raise CompressionError(
            f"student and teacher must give logits of one shape, found {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}: do they know the same classes?"
        )
    positions = (len(student), *student.shape[2:])
    wanted = student.shape if labels.is_floating_point() else positions
    if labels.shape != wanted:
        raise CompressionError(
            f"labels for logits {tuple(student.shape)}: expected {tuple(wanted)}, found "
            f"{describe(labels)}"
        )


def check_numbers(student: Tensor, teacher: Tensor, labels: Tensor, *, heard: bool = True) -> None:
    """Refuse labels without a logit and, where it is `heard`, a teacher that is not finite."""
    check_labels(labels, student.shape)
    if not labels.is_floating_point() and bool((labels == IGNORED).all()):
        raise CompressionError(
            f"all {labels.numel()} labels of a batch are {IGNORED}, which counts nowhere: no loss can "
            "be computed; leave such a batch out"
        )
    bad = int((torch.isnan(teacher) | (teacher == torch.inf)).sum()) if heard else 0
    masked = (teacher == -torch.inf).all(dim=1)
    if bad or (heard and bool(masked.any())):
        found = f"{bad} of {teacher.numel()} NaN or infinite" if bad else "all classes at -inf"
        raise CompressionError(
            f"the teacher's logits: expected finite numbers, -inf for a masked class, found {found}; "
            "can it predict the images as they are prepared here?"
        )
