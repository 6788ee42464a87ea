"""Knowledge distillation: a student learns from a teacher's softened probabilities."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError
from compression.layers import check_model, copy_model
from compression.modes import evaluating
from compression.training import EpochReport, Recipe, Split, fit, has_bfloat16


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return 2 T^2 alpha KL(teacher_T || student_T) + (1 - alpha) CE(labels), a mean over the batch.

    Logits (N, classes), labels (N,). The loss of "Benchmarking of DNN compression techniques",
    figure 4, after Hinton et al. 2015 (arXiv:1503.02531): T^2 keeps the gradient of the soft part at
    one size for every T. Its printed "- sum y log(1 - y^)" is read as the cross-entropy that its
    text names. alpha = 0 is the plain cross-entropy exactly.
    """
    _check(temperature, alpha)
    hard = F.cross_entropy(student_logits, labels, label_smoothing=label_smoothing)
    if alpha == 0:
        return hard
    soft = F.kl_div(
        F.log_softmax(student_logits / temperature, dim=1),
        F.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",  # "mean" would divide by the classes too
        log_target=True,  # logarithms of the teacher: no 0 log 0 at a low temperature
    )
    return 2 * temperature**2 * alpha * soft + (1 - alpha) * hard


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
    """Return a copy of `student` trained on `train` with the teacher's help.

    The teacher sees the same augmented inputs (Beyer et al. 2022), in eval mode and without
    gradients; its buffers do not change and its training flag is restored.
    """
    _check(temperature, alpha)
    check_model(teacher)
    learner = copy_model(student)
    precise = recipe.precision == "bfloat16"

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        device = inputs.device
        autocast = precise and has_bfloat16(device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            targets = teacher(inputs) if alpha else logits.detach()
        return distillation_loss(
            logits,
            targets.float(),
            labels,
            temperature=temperature,
            alpha=alpha,
            label_smoothing=recipe.label_smoothing,
        )

    with evaluating(teacher):
        fit(learner, train, recipe, loss=loss, on_epoch=on_epoch)
    return learner


def _check(temperature: float, alpha: float) -> None:
    if not isinstance(temperature, int | float) or not 0 < temperature < float("inf"):
        raise CompressionError(
            f"temperature must be above 0 and finite, found {temperature!r}; 1 to 10 is usual"
        )
    if not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
        raise CompressionError(
            f"alpha, the teacher's share of the loss, must lie in 0..1, found {alpha!r}"
        )
