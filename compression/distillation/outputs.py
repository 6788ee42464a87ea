"""Distillation of outputs that are numbers, not logits of classes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.distillation.logits import check_option
from compression.errors import CompressionError
from compression.nested import named_leaves
from compression.training.checks import describe


def names_classes(outputs: Any, labels: Tensor) -> bool:
    """Tell whether `labels` are classes of logits (N, classes, ...), or probabilities of them.

    >>> names_classes(torch.zeros(2, 3), torch.tensor([0, 2]))
    True
    >>> names_classes(torch.zeros(2, 3), torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    False
    """
    if not isinstance(outputs, Tensor) or outputs.ndim < 2 or outputs.shape[1] < 2:
        return False
    if not labels.is_floating_point():
        return labels.shape == (len(outputs), *outputs.shape[2:])
    if labels.shape != outputs.shape:
        return False
    sums = labels.sum(1)
    return bool((labels >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=1e-3))


def output_distance(student: Any, teacher: Any) -> Tensor:
    """Return the mean square of the difference of outputs: a tensor, or a collection of tensors.

    Of collections it is the sum over the tensors that both have, by name or place. In float32 at
    least. CompressionError where they have none in common, or of other shapes.

    >>> output_distance(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
    tensor(2.)
    """
    known = dict(named_leaves(teacher, Tensor))
    pairs = [
        (name, own, known[name])
        for name, own in named_leaves(student, Tensor)
        if name in known and own.is_floating_point()
    ]
    if not pairs or any(own.shape != theirs.shape for _, own, theirs in pairs):
        found = ", ".join(f"{n or 'one'} {describe(a)} and {describe(b)}" for n, a, b in pairs)
        raise CompressionError(
            "student and teacher must give outputs of one shape, found "
            f"{found or f'a {type(student).__name__} and a {type(teacher).__name__}'}"
        )
    return torch.stack([F.mse_loss(_wide(own), _wide(theirs)) for _, own, theirs in pairs]).sum()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanSquared:
    """The student learns the teacher's outputs: (1 - alpha) loss + alpha mean squared error.

    For outputs that are numbers (regression, scores of many labels), and for dictionaries of them.
    The loss is that of the training; the distance is `output_distance`, in the outputs' own units.

    alpha  above 0 and up to 1, the teacher's share

    CompressionError for another alpha. Ba and Caruana 2014, arXiv:1312.6184, who take logits.

    >>> outputs = torch.tensor([1.0, 3.0])
    >>> MeanSquared(alpha=0.25)(outputs, torch.ones(2), hard=torch.tensor(4.0))
    tensor(3.5000)
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        name = "alpha, the teacher's share of the loss,"
        check_option(name, self.alpha, lambda x: 0 < x <= 1, "lie above 0 and up to 1")

    def __call__(self, student: Any, teacher: Any, *, hard: Tensor) -> Tensor:
        """Return the loss of outputs, and of what the targets teach."""
        soft = self.alpha * output_distance(student, teacher)
        return soft if self.alpha == 1 else soft + (1 - self.alpha) * hard
