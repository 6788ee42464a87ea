"""What has no loss is named, whatever the loss."""

import numpy as np
import pytest
import torch

from compression.distillation import Decoupled, Dist, Hinton, Standardized
from compression.errors import CompressionError
from tests.support.distillation_losses import CHOICES, SOFT, drawn, soft

every_loss = pytest.mark.parametrize("name", SOFT)
S, T, LABELS = drawn(4, 3)
REFUSED = {
    "other classes": (S, T[:, :2], LABELS, r"one shape, found \(4, 3\) and \(4, 2\)"),
    "labels of another batch": (S, T, LABELS[:2], r"expected \(4,\), found \(2,\)"),
    "a label too high": (S, T, LABELS * 0 + 3, r"in 0\.\.2.*found 3 to 3"),
    "nothing to learn": (S, T, LABELS * 0 - 100, "all 4 labels of a batch are -100"),
    "no image": (S[:0], T[:0], LABELS[:0], r"at least one position"),
    "a teacher of NaN": (S, T * torch.nan, LABELS, "teacher's logits: .* found 12 of 12 NaN"),
    "a teacher of nothing": (S, T - torch.inf, LABELS, "found all classes at -inf"),
    "integers": (S.long(), T, LABELS, "student's logits: expected floating-point"),
}


@every_loss
@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_loss_is_named(name: str, case: str) -> None:
    *arguments, message = REFUSED[case]
    for loss in (soft(name), CHOICES[name]):
        with pytest.raises(CompressionError, match=message):
            loss(*arguments)


@every_loss
def test_a_student_of_nan_has_no_finite_loss(name: str) -> None:
    student = S.index_fill(0, torch.tensor(1), torch.nan)
    assert not torch.isfinite(soft(name)(student, T, LABELS))


WRONG = [
    *((choice, {"temperature": t}) for choice in (Hinton, Standardized, Decoupled, Dist)
      for t in (0, -1.0, np.inf, np.nan, "4", None)),
    *((Hinton, {"alpha": a}) for a in (-0.1, 1.1, np.nan)),
    *((Standardized, {"weight": w}) for w in (0, -1, np.inf)),
    *((choice, {"beta": w}) for choice in (Decoupled, Dist) for w in (-1, np.nan, "8")),
    (Decoupled, {"alpha": -1}), (Dist, {"gamma": -1}),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "options"), WRONG)
def test_options_out_of_range_are_refused(choice: type, options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(CompressionError, match=rf"^{name}\b.* must .*found"):
        choice(**options)
