"""The loss that a training takes so that a teacher helps."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from compression.distillation.answers import Remembered
from compression.distillation.attention import AttentionTransfer, OfLogits
from compression.distillation.hinton import Hinton
from compression.distillation.logits import as_labels, check_numbers, check_shapes
from compression.errors import UnsupportedTypeError
from compression.layers import check_model
from compression.modes import evaluating
from compression.training import Loss, Recipe, Split, check_labels, has_bfloat16
from compression.training.checks import check_logits, describe, named_errors

Distillation = OfLogits | AttentionTransfer
"""What a student learns of its teacher."""
HINTON = Hinton()
"""What it learns where nothing else is said."""


@contextmanager
def taught(
    student: nn.Module,
    teacher: nn.Module | None,
    train: Split,
    recipe: Recipe,
    distillation: Distillation,
) -> Iterator[Loss | None]:
    """Give the loss by which `fit` trains `student`, the network itself, with the teacher's help.

    The teacher is in eval mode within. Its gradients, buffers and training flag stay as they are, and
    hooks on either network are gone afterwards. Without a teacher the loss is None, the cross-entropy
    of `fit`. UnsupportedTypeError for what is no loss of this room, teacher or not.
    """
    if not isinstance(distillation, Distillation):
        raise UnsupportedTypeError(
            "distillation must be Hinton(), Standardized(), Decoupled(), Dist() or "
            f"AttentionTransfer(...), found {distillation!r}"
        )
    if teacher is None:
        yield None
        return
    check_model(teacher)
    with ExitStack() as stack:
        stack.enter_context(evaluating(teacher))
        if isinstance(distillation, AttentionTransfer):
            distance = stack.enter_context(distillation.watched(student, teacher))
            yield _loss(teacher, train, recipe, distillation.logits, distance)
        else:
            yield _loss(teacher, train, recipe, distillation, None)


def _loss(
    teacher: nn.Module,
    train: Split,
    recipe: Recipe,
    of_logits: OfLogits,
    distance: Callable[[], Tensor] | None,
) -> Loss:
    """Return the loss of logits, labels and inputs, with the teacher's logits of the same inputs.

    The teacher runs where anything listens to it; where only its logits count, once per batch that
    the recipe shows again.
    """
    teach = _teacher(teacher, recipe)
    if recipe.repeats and distance is None:
        teach = Remembered(teach)
    heard = not isinstance(of_logits, Hinton) or of_logits.alpha > 0
    looked_at = False

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        nonlocal looked_at
        check_logits("the student", logits)
        answers = teach(inputs) if heard or distance is not None else logits.detach()
        targets = answers if heard else logits.detach()
        if not looked_at:  # once, since a GPU is waited for
            check_shapes(logits, targets, as_labels(labels))
            check_numbers(logits, targets, labels, heard=heard)
            check_labels(train.labels, logits.shape)
            looked_at = True
        value = of_logits(logits, targets, labels, label_smoothing=recipe.label_smoothing)
        return value if distance is None else value + distance()

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
