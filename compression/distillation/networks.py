"""A student that learns from a teacher."""

from collections.abc import Callable
from typing import Any

from torch import nn

from compression.distillation.taught import HINTON, Distillation, taught
from compression.layers import check_module, copy_model
from compression.training import EpochReport, Labelled, Loss, Recipe, fit


def distill(
    student: nn.Module,
    teacher: nn.Module,
    train: Labelled,
    recipe: Recipe,
    *,
    distillation: Distillation = HINTON,
    loss: Loss | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    resume_from: dict[str, Any] | None = None,
) -> nn.Module:
    """Return a copy of `student` trained on `train` by `recipe` with the teacher's help.

    distillation  what the student learns: Hinton(temperature=..., alpha=...), Standardized(),
                  Decoupled(), Dist() or AttentionTransfer(layers); MeanSquared() where outputs are
                  numbers, not logits of classes
    loss          that of `fit`, of the labels, in place of the cross-entropy
    on_epoch      runs after every epoch
    resume_from   what the state() of an EpochReport gave, to go on after its epoch

    The teacher sees the same augmented inputs (Beyer et al. 2022, arXiv:2106.05237), in eval mode and
    without gradients; its buffers do not change and its training flag is restored. It may be what
    `deploy` returned of its INT8 form, which answers faster. Where the recipe has `views`, it answers
    each batch once, unless its layers are watched. A teacher that is much stronger helps more as a
    checkpoint of a shorter training (Cho and Hariharan 2019, arXiv:1910.01348), or by an assistant of
    a size between: distill twice (Mirzadeh et al. 2020, arXiv:1902.03393). Raises
    CompressionError where student, teacher and labels do not go together, and what `fit` raises.
    Hinton et al. 2015, arXiv:1503.02531.

    >>> import torch
    >>> from compression import Hinton, Split
    >>> train = Split(torch.randn(32, 4), torch.arange(32) % 2, prepare=lambda x: x)
    >>> recipe = Recipe(epochs=1, batch_size=16, learning_rate=0.1)
    >>> teacher, student = nn.Linear(4, 2), nn.Linear(4, 2, bias=False)
    >>> loss = Hinton(temperature=4.0, alpha=0.5)
    >>> distill(student, teacher, train, recipe, distillation=loss)
    Linear(in_features=4, out_features=2, bias=False)
    """
    check_module(teacher)
    learner = copy_model(student)
    with taught(learner, teacher, train, recipe, distillation, loss) as goal:
        fit(learner, train, recipe, loss=goal, on_epoch=on_epoch, resume_from=resume_from)
    return learner
