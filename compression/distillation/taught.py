"""The loss that a training takes so that a teacher helps."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compression.distillation.answers import Remembered
from compression.distillation.attention import AttentionTransfer, OfOutputs
from compression.distillation.hinton import Hinton
from compression.distillation.logits import (
    as_labels,
    check_numbers,
    check_shapes,
    cross_entropy,
)
from compression.distillation.outputs import MeanSquared, names_classes
from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import check_model
from compression.modes import evaluating
from compression.nested import map_tensors
from compression.training import Labelled, Loss, Recipe, Split, check_labels, has_bfloat16
from compression.training.checks import check_logits, describe, named_errors

Distillation = OfOutputs | AttentionTransfer
"""What a student learns of its teacher."""
HINTON = Hinton()
"""What it learns where nothing else is said."""


@contextmanager
def taught(
    student: nn.Module,
    teacher: nn.Module | None,
    train: Labelled,
    recipe: Recipe,
    distillation: Distillation,
    loss: Loss | None = None,
) -> Iterator[Loss | None]:
    """Give the loss by which `fit` trains `student`, the network itself, with the teacher's help.

    What the labels teach is `loss`, that of `fit`, the cross-entropy where it is None. The teacher is
    in eval mode within. Its gradients, buffers and training flag stay as they are, and hooks on either
    network are gone afterwards. Without a teacher `loss` comes back. UnsupportedTypeError for what is
    no distillation of this room, teacher or not.
    """
    if not isinstance(distillation, Distillation):
        raise UnsupportedTypeError(
            "distillation must be Hinton(), Standardized(), Decoupled(), Dist(), MeanSquared() or "
            f"AttentionTransfer(...), found {distillation!r}"
        )
    if teacher is None:
        yield loss
        return
    check_model(teacher)
    with ExitStack() as stack:
        stack.enter_context(evaluating(teacher))
        if isinstance(distillation, AttentionTransfer):
            distance = stack.enter_context(distillation.watched(student, teacher))
            lesson = Lesson(teacher, train, recipe, distillation.logits, loss, distance)
        else:
            lesson = Lesson(teacher, train, recipe, distillation, loss, None)
        yield lesson.loss()


@dataclass(frozen=True, slots=True)
class Lesson:
    """A teacher, what the student learns of it, and `hard`, what the labels teach."""

    teacher: nn.Module
    train: Labelled
    recipe: Recipe
    of_outputs: OfOutputs
    hard: Loss | None
    distance: Callable[[], Tensor] | None

    @property
    def heard(self) -> bool:
        """Whether the teacher's outputs count."""
        return not isinstance(self.of_outputs, Hinton) or self.of_outputs.alpha > 0

    def loss(self) -> Loss:
        """Return the loss of outputs, labels and inputs, with the teacher's outputs of the same inputs.

        The teacher runs where anything listens to it; where only its outputs count, once per batch that
        the recipe shows again.
        """
        if self.hard is not None and not self.heard and self.distance is None:
            return self.hard
        teach = _teacher(self.teacher, self.recipe, isinstance(self.of_outputs, MeanSquared))
        if self.recipe.repeats and self.distance is None:
            teach = Remembered(teach)
        looked_at = False

        def loss(outputs: Any, labels: Any, inputs: Tensor) -> Tensor:
            nonlocal looked_at
            answers = teach(inputs) if self.heard or self.distance is not None else None
            if not looked_at:  # a GPU is waited for: once, but where labels are read as it goes
                self._check(outputs, answers, labels)
                looked_at = isinstance(self.train, Split)
            value = self._value(outputs, answers if self.heard else None, labels, inputs)
            return value if self.distance is None else value + self.distance()

        return loss

    def _value(self, outputs: Any, answers: Any, labels: Tensor, inputs: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        hard = None if self.hard is None else self.hard(outputs, labels, inputs)
        if isinstance(self.of_outputs, MeanSquared):
            taught = cross_entropy(outputs, labels, smoothing) if hard is None else hard
            return self.of_outputs(outputs, answers, hard=taught)
        if hard is not None and not self.heard:
            return hard
        targets = outputs.detach() if answers is None else answers
        other = {} if hard is None else {"hard": hard}
        return self.of_outputs(outputs, targets, labels, label_smoothing=smoothing, **other)

    def _check(self, outputs: Any, answers: Any, labels: Tensor) -> None:
        """Refuse outputs and labels that the losses cannot take together."""
        if self.hard is not None and (isinstance(self.of_outputs, MeanSquared) or not self.heard):
            return
        logits = check_logits("the student", outputs)
        if not isinstance(self.train, Split):
            check_labels(labels, logits.shape)
        if self.hard is not None and not names_classes(logits, labels):
            raise CompressionError(
                f"{type(self.of_outputs).__name__}() compares probabilities of classes, and labels "
                f"{describe(labels)} name no classes of outputs {describe(logits)}; pass "
                "distillation=MeanSquared(), which compares the outputs"
            )
        targets = answers if self.heard else logits.detach()
        check_shapes(logits, targets, as_labels(labels))
        check_numbers(logits, targets, labels, heard=self.heard)
        if isinstance(self.train, Split):
            check_labels(self.train.labels, logits.shape)


def _teacher(teacher: nn.Module, recipe: Recipe, whole: bool) -> Callable[[Tensor], Any]:
    """Return the teacher as it is called: in the recipe's precision, contiguous where it must be.

    It gives one tensor of logits, or with `whole` whatever its outputs are; both in float32.
    """

    def teach(inputs: Tensor) -> Any:
        device = inputs.device
        autocast = recipe.precision == "bfloat16" and has_bfloat16(device)
        what = f"the teacher cannot take a batch of inputs {describe(inputs)}"
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            try:
                found = teacher(inputs)
            except Exception:  # by a view, which images that lie channels last do not have
                with named_errors(teacher, what):
                    found = teacher(inputs.contiguous())
        if whole and not isinstance(found, Tensor):
            return map_tensors(found, _in_float32, "the teacher's outputs")
        return check_logits(teacher, found).float()

    return teach


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
