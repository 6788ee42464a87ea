"""What holds for the soft part of each loss of logits, beside a reference of its own in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from compression.errors import CompressionError
from tests.support.distillation_losses import CHOICES, SOFT, drawn, soft

every_loss = pytest.mark.parametrize("name", SOFT)
# what: (bound, reason)
TOLERANCES = {
    "float32": (2e-5, "sums of differences of logarithms, in float32, times T^2"),
    "same": (1e-5, "1 - r of what is one line, and KL of what is one distribution, in float32"),
    "shift": (2e-4, "a shift of 8 leaves float32's 2^-21 of the logits, times T^2 and the weights"),
}


@every_loss
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(7, 5), (16, 10), (9, 100)])
def test_it_is_the_reference_s(name: str, temperature: float, shape: tuple[int, ...]) -> None:
    student, teacher, labels = drawn(*shape)
    wanted = SOFT[name][1](
        student.double().numpy(), teacher.double().numpy(), labels.tolist(), temperature=temperature
    )
    assert soft(name, temperature)(student.double(), teacher.double(), labels).item() == (
        pytest.approx(wanted, rel=1e-9)
    )
    found = soft(name, temperature)(student, teacher, labels).item()
    assert found == pytest.approx(wanted, rel=TOLERANCES["float32"][0])


@every_loss
def test_its_gradient_is_that_of_finite_differences(name: str) -> None:
    student, teacher, labels = (x.double() for x in drawn(4, 5, seed=1))
    student.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: soft(name)(s, teacher, labels.long()), student, eps=1e-6, atol=1e-7
    )
    mask = torch.zeros(5).index_fill_(0, torch.tensor(3), -torch.inf)
    labels = (labels.long() % 3).index_fill_(0, torch.tensor(2), -100)
    assert torch.autograd.gradcheck(
        lambda s: soft(name)(s + mask, teacher + mask, labels), student, eps=1e-6, atol=1e-7
    )


@every_loss
@given(seed=st.integers(0, 1000), shift=st.floats(-8, 8, width=32), classes=st.integers(2, 20))
def test_a_shift_of_logits_and_an_order_of_classes_or_images_count_nowhere(
    name: str, seed: int, shift: float, classes: int
) -> None:
    student, teacher, labels = drawn(6, classes, seed=seed)
    found = soft(name)(student, teacher, labels)
    tolerance = TOLERANCES["shift"][0]
    shifted = soft(name)(student + shift, teacher - shift, labels)
    assert torch.isclose(shifted, found, rtol=tolerance, atol=tolerance)
    images = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    other = soft(name)(student[images], teacher[images], labels[images])
    assert torch.isclose(other, found, rtol=tolerance, atol=tolerance)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    other = soft(name)(student[:, order], teacher[:, order], order.argsort()[labels])
    assert torch.isclose(other, found, rtol=tolerance, atol=tolerance)


@every_loss
@given(seed=st.integers(0, 1000), size=st.sampled_from([1e-3, 1.0, 30.0]))
def test_it_is_above_zero_and_zero_where_the_student_is_its_teacher(
    name: str, seed: int, size: float
) -> None:
    student, teacher, labels = drawn(5, 6, seed=seed)
    assert soft(name)(size * student, size * teacher, labels) > -TOLERANCES["same"][0]
    leaf = (size * teacher).requires_grad_()
    same = soft(name)(leaf, size * teacher, labels)
    assert abs(same.item()) < TOLERANCES["same"][0]
    same.backward()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


@every_loss
@pytest.mark.parametrize("shape", [(2, 5, 6, 6), (3, 5, 7), (2, 5, 2, 3, 4)])
def test_positions_count_as_images_do_and_ignored_ones_do_not(
    name: str, shape: tuple[int, ...]
) -> None:
    student, teacher, labels = drawn(*shape)
    flat = [z.movedim(1, -1).reshape(-1, 5) for z in (student, teacher)]
    for loss in (soft(name), CHOICES[name]):
        found = loss(student, teacher, labels)
        assert torch.isclose(found, loss(*flat, labels.flatten()), rtol=1e-5)
        ignored = labels.flatten().clone()
        ignored[::3] = -100
        kept = ignored != -100
        found = loss(student, teacher, ignored.view_as(labels))
        assert torch.isclose(found, loss(*[z[kept] for z in flat], ignored[kept]), rtol=1e-5)


@every_loss
def test_a_class_that_both_mask_counts_nowhere(name: str) -> None:
    student, teacher, labels = drawn(6, 4)
    infinite = torch.full((6, 1), -torch.inf)
    leaf = torch.cat([student, infinite], 1).requires_grad_()
    for loss in (soft(name), CHOICES[name]):
        leaf.grad = None
        found = loss(leaf, torch.cat([teacher, infinite], 1), labels)
        assert torch.isclose(found, loss(student, teacher, labels), rtol=1e-5)
        found.backward()
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert (leaf.grad[:, 4] == 0).all()
    ruled_out = torch.cat([teacher[:, :3], infinite], 1)
    assert torch.isfinite(soft(name)(student, ruled_out, labels % 3)), "the student may give it"


@every_loss
def test_masks_of_each_image_are_its_own(name: str) -> None:
    student, teacher, labels = drawn(4, 6)
    mask = torch.where(torch.eye(4, 6, dtype=torch.bool), -torch.inf, 0.0)
    leaf = (student + mask).requires_grad_()
    loss = soft(name)(leaf, teacher + mask, labels % 2 + 4)
    loss.backward()
    assert torch.isfinite(loss)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    assert abs(soft(name)(teacher + mask, teacher + mask, labels % 2 + 4)) < 1e-5


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    student, teacher, labels = drawn(8, 10)
    student, teacher = (10 * student).to(dtype), (10 * teacher).to(dtype)
    for loss in (soft(name, 100.0), CHOICES[name]):
        found = loss(student, teacher, labels)
        assert found.dtype == torch.float32
        wanted = loss(student.double(), teacher.double(), labels)
        assert torch.isclose(found.double(), wanted, rtol=0.01, atol=1e-3)
        assert torch.equal(found, loss(student.float(), teacher.float(), labels))


@every_loss
def test_a_student_of_one_number_has_no_gradient_of_noise(name: str) -> None:
    """Networks begin so whose last layer is zero."""
    _, teacher, labels = drawn(6, 5)
    for number in (0.0, 0.1, 1 / 3):
        leaf = torch.full((6, 5), number).requires_grad_()
        loss = soft(name)(leaf, teacher, labels)
        loss.backward()
        assert torch.isfinite(loss)
        assert leaf.grad is not None
        assert leaf.grad.abs().max() < 10


@every_loss
def test_extreme_logits_are_finite(name: str) -> None:
    student, teacher, labels = drawn(6, 5)
    for temperature, size in ((0.01, 100.0), (1000.0, 1e-3), (1.0, 1e4)):
        leaf = (size * student).requires_grad_()
        loss = soft(name, temperature)(leaf, size * teacher, labels)
        loss.backward()
        assert torch.isfinite(loss)
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


@every_loss
def test_one_image_and_one_class_are_taken(name: str) -> None:
    student, teacher, labels = drawn(1, 4)
    leaf = student.clone().requires_grad_()
    soft(name)(leaf, teacher, labels).backward()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()
    one = torch.randn(3, 1).requires_grad_()
    loss = soft(name)(one, torch.randn(3, 1), torch.zeros(3).long())
    loss.backward()
    assert loss == 0
    assert one.grad is not None
    assert (one.grad == 0).all()


@every_loss
def test_the_whole_is_the_labels_cross_entropy_and_the_soft_part(name: str) -> None:
    student, teacher, labels = drawn(8, 5)
    hard = F.cross_entropy(student, labels, label_smoothing=0.1)
    parts = {"hinton": (0.5, 1.0), "standardized": (1.0, 9.0)}
    share, weight = parts.get(name, (1.0, 1.0))
    wanted = share * hard + weight * soft(name)(student, teacher, labels)
    found = CHOICES[name](student, teacher, labels, label_smoothing=0.1)
    assert torch.isclose(found, wanted, rtol=1e-6)
    assert torch.equal(found, CHOICES[name](student, teacher, labels.int(), label_smoothing=0.1))


@every_loss
def test_probabilities_are_labels_where_no_class_is_asked_for(name: str) -> None:
    student, teacher, labels = drawn(8, 5)
    one_hot = F.one_hot(labels, 5).float()
    if name == "decoupled":
        with pytest.raises(CompressionError, match=r"a class per position.*found labels \(8, 5\)"):
            CHOICES[name](student, teacher, one_hot)
    else:
        found = CHOICES[name](student, teacher, one_hot)
        assert torch.isclose(found, CHOICES[name](student, teacher, labels))
