"""Metrics: one value per example of a network's outputs and its targets; the score is their mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compression.checks import is_whole
from compression.errors import CompressionError
from compression.training.checks import IGNORED, describe

MAIN_OUTPUTS = ("out", "logits")
"""Names of the output that counts, as torchvision's and Hugging Face's networks use them."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What a network is judged by: a value per example, whose mean is the score.

    name              what tables and reports call it
    of                (outputs, targets) -> N values, numbers or bools. Outputs are the network's, in
                      float32 on the CPU, a dictionary where it returns one; targets are (N, ...)
    unit              that of the values; "%" for shares of 1, which are shown in percent
    higher_is_better  False for an error

    Called with a batch it returns the values as float64, or bool. CompressionError names the metric
    that fails, gives other than a value per example, or one that is not finite.

    >>> within = Metric("within 1", lambda outputs, targets: (outputs - targets).abs() <= 1)
    >>> within(torch.tensor([0.5, 3.0]), torch.tensor([1.0, 1.0]))
    tensor([ True, False])
    """

    name: str
    of: Callable[[Any, Tensor], Tensor]
    unit: str = "%"
    higher_is_better: bool = True

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the values (N,) of a batch."""
        try:
            found = self.of(outputs, targets)
        except CompressionError as error:
            raise CompressionError(f"metric {self.name}: {error}") from error
        except Exception as error:  # of the user's code, whatever it is
            raise CompressionError(
                f"metric {self.name} fails on targets {describe(targets)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        count = len(targets)
        if not isinstance(found, Tensor) or found.shape != (count,) or found.is_complex():
            kind = describe(found) if isinstance(found, Tensor) else type(found).__name__
            raise CompressionError(
                f"metric {self.name}: expected one value per example, a tensor ({count},) for targets "
                f"{describe(targets)}, found {kind}; take the mean over all other axes"
            )
        values = found.detach().cpu()
        values = values if values.dtype == torch.bool else values.double()
        bad = (~torch.isfinite(values)).nonzero().view(-1)
        if len(bad):
            raise CompressionError(
                f"metric {self.name}: expected finite numbers, found {values[bad[0]].item()} for "
                f"example {int(bad[0])} of a batch of {count}"
            )
        return values


def main_output(outputs: Any) -> Tensor:
    """Return the tensor that counts: the output itself, or "out" or "logits" of a dictionary."""
    if isinstance(outputs, Tensor):
        return outputs
    named = outputs if isinstance(outputs, Mapping) else {}
    for name in MAIN_OUTPUTS:
        if isinstance(named.get(name), Tensor):
            return named[name]  # type: ignore[no-any-return]
    kind = type(outputs).__name__ + (f" of {', '.join(map(str, named))}" if named else "")
    raise CompressionError(
        f"expected one tensor, or a dictionary with one named {' or '.join(MAIN_OUTPUTS)}, found "
        f"{kind}; write a Metric of your own that picks one"
    )


def top_k(k: int) -> Metric:
    """Return the metric whether the class (N,) is among the `k` largest logits (N, classes).

    CompressionError for a `k` below 1.

    >>> logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    >>> top_k(2)(logits, torch.tensor([1, 2]))
    tensor([ True, False])
    """
    if not is_whole(k) or k < 1:
        raise CompressionError(f"top_k: expected a whole number from 1, found {k!r}")

    def among(outputs: Any, targets: Tensor) -> Tensor:
        logits = main_output(outputs)
        if logits.ndim != 2 or targets.shape != (len(logits),):
            raise CompressionError(
                f"expected logits (N, classes) and a class per example (N,), found {describe(logits)} "
                f"and {describe(targets)}; where each position has a class, MEAN_IOU judges them"
            )
        first = logits.topk(min(k, logits.shape[1]), dim=1).indices
        return (first == targets.unsqueeze(1)).any(dim=1)

    return Metric(f"top-{k}", among)


def _first_choice(outputs: Any, targets: Tensor) -> Tensor:
    logits = main_output(outputs)
    if logits.ndim < 2 or (len(logits), *logits.shape[2:]) != targets.shape:
        raise CompressionError(
            f"expected a label for each choice of logits {describe(logits)}, (N, classes, ...), "
            f"found labels {describe(targets)}"
        )
    return logits.argmax(dim=1) == targets


def mean_iou(outputs: Any, targets: Tensor) -> Tensor:
    """Return the mean intersection over union of each image, over the classes that it has.

    Of logits (N, classes, ...) and a class per position (N, ...). The classes of an image are those
    of its targets and of its prediction; positions of the target -100 count nowhere. The score is
    the mean over images, not that over the classes of a whole data set.
    """
    logits = main_output(outputs)
    if logits.ndim < 3 or (len(logits), *logits.shape[2:]) != targets.shape:
        raise CompressionError(
            f"expected logits (N, classes, ...) and a class per position (N, ...), found "
            f"{describe(logits)} and {describe(targets)}"
        )
    count, classes = logits.shape[:2]
    chosen, wanted = logits.argmax(dim=1).flatten(1), targets.flatten(1).long()
    counted = wanted != IGNORED
    if bool((counted & ((wanted < 0) | (wanted >= classes))).any()):
        raise CompressionError(f"expected classes 0..{classes - 1}, found {targets.unique()[:9]}")
    image = torch.arange(count).unsqueeze(1) * classes

    def number_of(labels: Tensor, where: Tensor) -> Tensor:
        found = (image + labels)[where]
        return torch.bincount(found, minlength=count * classes).view(count, classes).double()

    both = number_of(wanted, counted & (chosen == wanted))
    either = number_of(wanted, counted) + number_of(chosen, counted) - both
    has = either > 0
    return (both / either.clamp_min(1)).sum(1) / has.sum(1)


def absolute_error(outputs: Any, targets: Tensor) -> Tensor:
    """Return the mean absolute difference of each example's outputs and targets, of one shape."""
    found = main_output(outputs)
    if found.shape != targets.shape:
        raise CompressionError(
            f"expected outputs and targets of one shape, found {describe(found)} and "
            f"{describe(targets)}"
        )
    return (found.double() - targets.double()).abs().view(len(found), -1).mean(1)


def f1(outputs: Any, targets: Tensor) -> Tensor:
    """Return each example's F1 of its labels: logits (N, labels) above 0 against targets of 0 and 1.

    An example without a label, that is given none, has 1. The score is the mean over examples
    ("samples" averaging in scikit-learn).
    """
    logits = main_output(outputs)
    if logits.ndim != 2 or logits.shape != targets.shape:
        raise CompressionError(
            f"expected logits (N, labels) and targets of 0 and 1 in their shape, found "
            f"{describe(logits)} and {describe(targets)}"
        )
    given, wanted = logits > 0, targets > 0.5
    both, total = (given & wanted).sum(1).double(), (given.sum(1) + wanted.sum(1)).double()
    return torch.where(total > 0, 2 * both / total.clamp_min(1), 1.0)


TOP_1 = Metric("top-1", _first_choice)
"""Whether the largest logit is that of the class."""
MEAN_IOU = Metric("mean IoU", mean_iou)
MEAN_ABSOLUTE_ERROR = Metric("MAE", absolute_error, unit="", higher_is_better=False)
F1 = Metric("F1", f1)
