"""Knowledge distillation: a student learns from a teacher's softened probabilities."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import check_model, check_module, copy_model
from compression.modes import evaluating
from compression.training import EpochReport, Loss, Recipe, Split, check_labels, fit, has_bfloat16
from compression.training.checks import IGNORED, check_logits, describe, named_errors


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
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
    cross-entropy exactly.
    """
    _check(temperature, alpha, label_smoothing)
    labels = labels if labels.is_floating_point() else labels.long()  # of any integers
    _check_shapes(student_logits, teacher_logits, labels)
    if student_logits.device.type == "cpu":
        _check_numbers(student_logits, teacher_logits, labels, alpha)
    if alpha == 0:
        return F.cross_entropy(student_logits, labels, label_smoothing=label_smoothing)
    dtype = torch.promote_types(student_logits.dtype, teacher_logits.dtype)
    dtype = torch.promote_types(dtype, torch.float32)  # T^2 leaves the range of halves
    student_logits, teacher_logits = student_logits.to(dtype), teacher_logits.to(dtype)
    soft = _divergence(student_logits / temperature, teacher_logits / temperature, labels)
    taught = 2 * temperature**2 * alpha * soft
    if alpha == 1:  # not 0 times a hard part that may be infinite
        return taught
    hard = F.cross_entropy(student_logits, labels, label_smoothing=label_smoothing)
    return taught + (1 - alpha) * hard


def _divergence(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Return KL(teacher || student) of logits (N, classes, ...), its mean over positions."""
    student, teacher = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    silent = teacher == -torch.inf
    count: Tensor | float = teacher.numel() / teacher.shape[1]
    if not labels.is_floating_point():
        ignored = labels == IGNORED
        silent, count = silent | ignored.unsqueeze(1), (~ignored).sum().to(teacher.dtype)
    # What the teacher gives no probability adds nothing: p log p goes to 0 with p.
    total = F.kl_div(
        student.masked_fill(silent, 0),
        teacher.masked_fill(silent, 0),
        reduction="sum",  # "mean" would divide by the classes too
        log_target=True,  # logarithms of the teacher: no 0 log 0 at a low temperature
    )
    return total / count


def distill(
    student: nn.Module,
    teacher: nn.Module,
    train: Split,
    recipe: Recipe,
    *,
    temperature: float,
    alpha: float,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> nn.Module:
    """Return a copy of `student` trained on `train` by `recipe` with the teacher's help.

    The loss is `distillation_loss`: `temperature` above 0 softens both, and `alpha` in 0..1 is the
    teacher's share. The teacher sees the same augmented inputs (Beyer et al. 2022,
    arXiv:2106.05237), in eval mode and without gradients; its buffers do not change and its training
    flag is restored. Raises CompressionError where student, teacher and labels do not go together,
    and what `fit` raises. Hinton et al. 2015, arXiv:1503.02531.

    >>> train = Split(torch.randn(32, 4), torch.arange(32) % 2, prepare=lambda x: x)
    >>> recipe = Recipe(epochs=1, batch_size=16, learning_rate=0.1)
    >>> teacher, student = nn.Linear(4, 2), nn.Linear(4, 2, bias=False)
    >>> distill(student, teacher, train, recipe, temperature=4.0, alpha=0.5)
    Linear(in_features=4, out_features=2, bias=False)
    """
    check_module(teacher)
    learner = copy_model(student)
    with taught(teacher, train, recipe, temperature=temperature, alpha=alpha) as loss:
        fit(learner, train, recipe, loss=loss, on_epoch=on_epoch)
    return learner


@contextmanager
def taught(
    teacher: nn.Module | None, train: Split, recipe: Recipe, *, temperature: float, alpha: float
) -> Iterator[Loss | None]:
    """Give the loss that `fit` takes to train with `teacher`, which is in eval mode within.

    Its gradients, buffers and training flag stay as they are. Without a teacher it is None, the
    cross-entropy of `fit`. Raises CompressionError for options out of their ranges, teacher or not.
    """
    _check(temperature, alpha, recipe.label_smoothing)
    if teacher is None:
        yield None
        return
    check_model(teacher)
    loss = teacher_loss(teacher, train, recipe, temperature=temperature, alpha=alpha)
    with evaluating(teacher):
        yield loss


def teacher_loss(
    teacher: nn.Module, train: Split, recipe: Recipe, *, temperature: float, alpha: float
) -> Loss:
    """Return `distillation_loss` with the teacher's logits of the same inputs, as `fit` takes it.

    The teacher runs in the mode that it is in, and at alpha = 0 not at all.
    """
    teach = _teacher(teacher, recipe)
    looked_at = False

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        nonlocal looked_at
        check_logits("the student", logits)
        targets = teach(inputs) if alpha else logits.detach()
        if not looked_at:  # once, since a GPU is waited for
            _check_shapes(logits, targets, labels)
            _check_numbers(logits, targets, labels, alpha)
            check_labels(train.labels, logits.shape)
            looked_at = True
        return distillation_loss(
            logits,
            targets,
            labels,
            temperature=temperature,
            alpha=alpha,
            label_smoothing=recipe.label_smoothing,
        )

    return loss


def _teacher(teacher: nn.Module, recipe: Recipe) -> Callable[[Tensor], Tensor]:
    """Return the teacher as it is called: in the recipe's precision, contiguous where it must be."""

    def teach(inputs: Tensor) -> Tensor:
        device = inputs.device
        autocast = recipe.precision == "bfloat16" and has_bfloat16(device)
        what = f"the teacher cannot take a batch of inputs {describe(inputs)}"
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            try:
                found = teacher(inputs)
            except Exception:  # by a view, which images that lie channels last do not have
                with named_errors(teacher, what):
                    found = teacher(inputs.contiguous())
        return check_logits(teacher, found).float()

    return teach


def _check(temperature: float, alpha: float, label_smoothing: float) -> None:
    if not isinstance(label_smoothing, int | float) or not 0 <= label_smoothing <= 1:
        raise CompressionError(f"label_smoothing must lie in 0..1, found {label_smoothing!r}")
    if not isinstance(temperature, int | float) or not 0 < temperature < float("inf"):
        raise CompressionError(
            f"temperature must be above 0 and finite, found {temperature!r}; 1 to 10 is usual"
        )
    if not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
        raise CompressionError(
            f"alpha, the teacher's share of the loss, must lie in 0..1, found {alpha!r}"
        )


def _check_shapes(student: Tensor, teacher: Tensor, labels: Tensor) -> None:
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


def _check_numbers(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float) -> None:
    check_labels(labels, student.shape)
    if not labels.is_floating_point() and bool((labels == IGNORED).all()):
        raise CompressionError(
            f"all {labels.numel()} labels of a batch are {IGNORED}, which counts nowhere: no loss can "
            "be computed; leave such a batch out"
        )
    bad = int((torch.isnan(teacher) | (teacher == torch.inf)).sum()) if alpha else 0
    masked = (teacher == -torch.inf).all(dim=1)
    if bad or (alpha and bool(masked.any())):
        found = f"{bad} of {teacher.numel()} NaN or infinite" if bad else "all classes at -inf"
        raise CompressionError(
            f"the teacher's logits: expected finite numbers, -inf for a masked class, found {found}; "
            "can it predict the images as they are prepared here?"
        )
