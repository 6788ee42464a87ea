import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compression.distillation import Hinton, distillation_loss
from compression.errors import CompressionError

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
        Hinton(alpha=alpha)


def former_loss(student: Tensor, teacher: Tensor, labels: Tensor, t: float, alpha: float) -> Tensor:
    soft = F.kl_div(
        F.log_softmax(student / t, dim=1), F.log_softmax(teacher / t, dim=1),
        reduction="batchmean", log_target=True,
    )  # fmt: skip
    return 2 * t**2 * alpha * soft + (1 - alpha) * F.cross_entropy(student, labels)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("t", [0.01, 4.0])
def test_plain_logits_give_the_loss_and_gradient_that_they_gave_to_the_bit(
    t: float, alpha: float
) -> None:
    torch.manual_seed(0)
    for count, classes in ((1, 2), (7, 10), (64, 1000)):
        logits, teacher = torch.randn(2, count, classes) * 5
        labels, found = torch.randint(0, classes, (count,)), []
        for loss in (
            lambda s, teacher=teacher, labels=labels: former_loss(s, teacher, labels, t, alpha),
            lambda s, teacher=teacher, labels=labels: distillation_loss(
                s, teacher, labels, temperature=t, alpha=alpha
            ),
        ):
            leaf = logits.clone().requires_grad_()
            value = loss(leaf)  # type: ignore[no-untyped-call]
            value.backward()
            found += [value.detach(), leaf.grad]
        assert torch.equal(found[0], found[2])
        assert torch.equal(found[1], found[3])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_class_that_both_mask_counts_nowhere(alpha: float) -> None:
    torch.manual_seed(0)
    student, teacher, labels = torch.randn(4, 5), torch.randn(4, 5), torch.arange(4)
    mask = torch.tensor([0, 0, 0, 0, -torch.inf])
    leaf = (student + mask).requires_grad_()
    found = distillation_loss(leaf, teacher + mask, labels, temperature=4.0, alpha=alpha)
    right = distillation_loss(student[:, :4], teacher[:, :4], labels, temperature=4.0, alpha=alpha)
    assert torch.isclose(found, right, rtol=1e-6)
    found.backward()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    assert (leaf.grad[:, 4] == 0).all()
    only = distillation_loss(student, teacher + mask, labels, temperature=4.0, alpha=1.0)
    assert 0 < only < torch.inf, "what the teacher rules out, the student may still give"


def test_with_the_teacher_alone_the_label_of_a_masked_class_is_not_looked_at() -> None:
    mask = torch.tensor([0.0, -torch.inf, 0.0])
    logits, teacher, labels = LOGITS + mask, TEACHER + mask, torch.tensor([1, 2])
    found = distillation_loss(logits, teacher, labels, temperature=2.0, alpha=1.0)
    assert torch.isfinite(found)
    found = distillation_loss(logits, teacher, labels, temperature=2.0, alpha=0.5)
    assert found == torch.inf


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(2, 5, 6, 6), (3, 5, 7), (2, 5, 2, 3, 4)])
def test_positions_count_as_images_do(shape: tuple[int, ...], alpha: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, *shape)
    labels = torch.randint(0, 5, (shape[0], *shape[2:]))
    options = {"temperature": 2.0, "alpha": alpha, "label_smoothing": 0.1}
    flat = [z.movedim(1, -1).reshape(-1, 5) for z in (student, teacher)]
    found = distillation_loss(student, teacher, labels, **options)
    right = distillation_loss(flat[0], flat[1], labels.flatten(), **options)
    assert torch.isclose(found, right, rtol=1e-5)
    ignored = labels.flatten().clone()
    ignored[::3] = -100
    kept = ignored != -100
    found = distillation_loss(student, teacher, ignored.view_as(labels), **options)
    right = distillation_loss(flat[0][kept], flat[1][kept], ignored[kept], **options)
    assert torch.isclose(found, right, rtol=1e-5), "an ignored position counts in neither part"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_those_of_float32_at_least(dtype: torch.dtype) -> None:
    logits, teacher = (LOGITS * 10).to(dtype), (TEACHER * 10).to(dtype)
    found = distillation_loss(logits, teacher, LABELS, temperature=100.0, alpha=0.5)
    right = distillation_loss(
        logits.double(), teacher.double(), LABELS, temperature=100.0, alpha=0.5
    )
    assert torch.isclose(found.double(), right, rtol=1e-5)
    plain = distillation_loss(logits, teacher, LABELS, temperature=2.0, alpha=0.0)
    assert torch.equal(plain, F.cross_entropy(logits, LABELS))


def test_integers_of_any_width_and_probabilities_are_labels() -> None:
    right = distillation_loss(LOGITS, TEACHER, LABELS, temperature=2.0, alpha=0.5)
    for labels in (LABELS.int(), LABELS.to(torch.uint8), F.one_hot(LABELS, 3).float()):
        found = distillation_loss(LOGITS, TEACHER, labels, temperature=2.0, alpha=0.5)
        assert torch.isclose(found, right)


NAN = TEACHER.clone()
NAN[0, 1] = torch.nan
REFUSED = {
    "other classes": (LOGITS, TEACHER[:, :2], LABELS, r"one shape, found \(2, 3\) and \(2, 2\)"),
    "one class": (LOGITS, TEACHER[:, :1], LABELS, "do they know the same classes"),
    "a label per class": (LOGITS, TEACHER, LABELS[:, None], r"expected \(2,\), found \(2, 1\) int64"),
    "fewer labels": (LOGITS, TEACHER, LABELS[:1], r"expected \(2,\), found \(1,\)"),
    "a label too high": (LOGITS, TEACHER, LABELS + 1, r"in 0\.\.2.*found 2 to 3"),
    "a label below": (LOGITS, TEACHER, LABELS - 2, "found -1 to 0"),
    "nothing to learn": (LOGITS, TEACHER, LABELS * 0 - 100, "all 2 labels of a batch are -100"),
    "no image": (LOGITS[:0], TEACHER[:0], LABELS[:0], r"at least one position, found \(0, 3\)"),
    "one axis": (LOGITS[0], TEACHER[0], LABELS[0], r"expected \(N, classes, \.\.\.\)"),
    "a teacher of NaN": (LOGITS, NAN, LABELS, "teacher's logits: .* found 1 of 6 NaN or infinite"),
    "a teacher of nothing": (LOGITS, TEACHER - torch.inf, LABELS, "found all classes at -inf"),
    "integers": (LOGITS, TEACHER.long(), LABELS, "teacher's logits: expected floating-point"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_loss_is_named(name: str) -> None:
    *arguments, message = REFUSED[name]
    with pytest.raises(CompressionError, match=message):
        distillation_loss(*arguments, temperature=2.0, alpha=0.5)  # type: ignore[arg-type]


def test_a_wrong_label_smoothing_is_refused() -> None:
    with pytest.raises(CompressionError, match=r"label_smoothing must lie in 0\.\.1, found 2"):
        distillation_loss(LOGITS, TEACHER, LABELS, temperature=2.0, alpha=0.5, label_smoothing=2)
