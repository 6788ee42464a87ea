"""Students and teachers: what distill returns, what it leaves, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compression.distillation import Hinton, distill
from compression.errors import CompressionError, UnsupportedTypeError
from tests.support.nets import RECIPE, mlp, residual, split


def test_distill_leaves_teacher_and_student_as_they_were() -> None:
    teacher, student = residual().train(), mlp()
    before = [{name: t.clone() for name, t in m.state_dict().items()} for m in (teacher, student)]
    learnt = distill(student, teacher, split(), RECIPE)
    for model, state in zip((teacher, student), before, strict=True):
        assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    assert teacher.training
    assert not torch.equal(learnt.get_parameter("1.weight"), student.get_parameter("1.weight"))


def test_the_teacher_teaches() -> None:
    data, teacher = split(96), residual(1)
    with torch.no_grad():
        wanted = teacher(data.images).argmax(1)
    learnt = distill(
        mlp(),
        teacher,
        data,
        RECIPE.__class__(10, 16, 0.05),
        distillation=Hinton(temperature=2.0, alpha=1.0),
    )
    agreement = (learnt(data.images).argmax(1) == wanted).float().mean()
    assert agreement > (mlp()(data.images).argmax(1) == wanted).float().mean()


class Broken(nn.Module):
    """Has no finite prediction, though its weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).log() * 0  # type: ignore[no-any-return]


def test_distill_names_teachers_and_labels_that_do_not_fit() -> None:
    five = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    with pytest.raises(CompressionError, match=r"one shape, found \(16, 4\) and \(16, 5\)"):
        distill(mlp(), five, split(), RECIPE)
    with pytest.raises(CompressionError, match="teacher's logits: expected finite numbers"):
        distill(mlp(), Broken(), split(), RECIPE)
    flat = replace(split(), prepare=lambda x: x.flatten(1)[:, :3])
    with pytest.raises(UnsupportedTypeError, match="LSTM: expected one tensor"):
        distill(nn.Linear(3, 4), nn.LSTM(3, 4), flat, RECIPE)
    with pytest.raises(CompressionError, match="Linear: the teacher cannot take a batch"):
        distill(mlp(), nn.Linear(5, 4), split(), RECIPE)
    labels = torch.zeros(64).long()
    labels[-1] = 4  # in one batch of four, and found before the first step
    with pytest.raises(CompressionError, match=r"labels must lie in 0\.\.3.* found 0 to 4"):
        distill(mlp(), mlp(1), replace(split(), labels=labels), RECIPE)
