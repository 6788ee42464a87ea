import math

import pytest
import torch
from torch.nn import functional as F

from compression.distillation import distill, distillation_loss
from compression.errors import CompressionError
from tests.nets import RECIPE, mlp, residual, split

LOGITS = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
TEACHER = torch.tensor([[2.0, 1.0, 0.0], [0.5, 0.0, 2.0]])
LABELS = torch.tensor([1, 2])
# T: (rtol, reason)
GRADIENT_RATIO = (0.6, 1.4, "T^2 keeps the soft gradient's size for T from 4 to 40")


def test_alpha_zero_is_plain_cross_entropy_to_the_bit() -> None:
    for smoothing in (0.0, 0.1):
        loss = distillation_loss(
            LOGITS, TEACHER, LABELS, temperature=4.0, alpha=0.0, label_smoothing=smoothing
        )
        assert torch.equal(loss, F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing))


def test_the_papers_formula_by_hand() -> None:
    t, alpha, total = 2.0, 0.3, 0.0
    for student, teacher, label in zip(LOGITS.tolist(), TEACHER.tolist(), LABELS, strict=True):
        p = [math.exp(v / t) / sum(math.exp(w / t) for w in teacher) for v in teacher]
        q = [math.exp(v / t) / sum(math.exp(w / t) for w in student) for v in student]
        kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        hard = -student[label] + math.log(sum(math.exp(v) for v in student))
        total += 2 * t * t * alpha * kl + (1 - alpha) * hard
    loss = distillation_loss(LOGITS, TEACHER, LABELS, temperature=t, alpha=alpha)
    assert loss.item() == pytest.approx(total / 2, rel=1e-5)


def test_a_student_like_its_teacher_has_no_soft_loss() -> None:
    loss = distillation_loss(LOGITS, LOGITS, LABELS, temperature=3.0, alpha=1.0)
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_the_gradients_size_does_not_depend_on_temperature() -> None:
    norms = []
    for temperature in (4.0, 40.0):
        logits = LOGITS.clone().requires_grad_()
        distillation_loss(logits, TEACHER, LABELS, temperature=temperature, alpha=1.0).backward()
        assert logits.grad is not None
        norms.append(logits.grad.norm().item())
    low, high, _ = GRADIENT_RATIO
    assert low < norms[0] / norms[1] < high


def test_the_papers_temperature_is_finite() -> None:
    logits = (LOGITS * 10).requires_grad_()
    loss = distillation_loss(logits, TEACHER * 10, LABELS, temperature=0.01, alpha=0.5)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_wrong_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(CompressionError, match="temperature"):
        distillation_loss(LOGITS, TEACHER, LABELS, temperature=temperature, alpha=0.5)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_a_wrong_alpha_is_refused(alpha: float) -> None:
    with pytest.raises(CompressionError, match="alpha"):
        distill(mlp(), mlp(), split(), RECIPE, temperature=1.0, alpha=alpha)


def test_distill_leaves_teacher_and_student_as_they_were() -> None:
    teacher, student = residual().train(), mlp()
    before = [{name: t.clone() for name, t in m.state_dict().items()} for m in (teacher, student)]
    learnt = distill(student, teacher, split(), RECIPE, temperature=4.0, alpha=0.5)
    for model, state in zip((teacher, student), before, strict=True):
        assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    assert teacher.training
    assert not torch.equal(learnt.get_parameter("1.weight"), student.get_parameter("1.weight"))


def test_the_teacher_teaches() -> None:
    data, teacher = split(96), residual(1)
    with torch.no_grad():
        wanted = teacher(data.images).argmax(1)
    learnt = distill(
        mlp(), teacher, data, RECIPE.__class__(10, 16, 0.05), temperature=2.0, alpha=1.0
    )
    agreement = (learnt(data.images).argmax(1) == wanted).float().mean()
    assert agreement > (mlp()(data.images).argmax(1) == wanted).float().mean()
