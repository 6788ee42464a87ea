"""What is said of one loss alone: the decomposition, standard scores, and correlations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from compression.distillation import (
    correlation_distance,
    decoupled_divergence,
    standardized_divergence,
)
from compression.distillation.correlation import pearson_distance
from compression.distillation.decoupled import decoupled_parts
from compression.distillation.standardized import standardize

SHOWN = torch.ones(4, 6, dtype=torch.bool)


def logits(seed: int, size: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    student, teacher = size * torch.randn(2, 4, 6, generator=made, dtype=torch.float64)
    return student, teacher, torch.randint(0, 6, (4,), generator=made)


@given(seed=st.integers(0, 10_000), size=st.sampled_from([0.01, 1.0, 10.0, 1000.0]))
def test_the_parts_of_decoupled_are_those_of_the_divergence(seed: int, size: float) -> None:
    """KL = target part + (1 - p of the label) non-target part."""
    student, teacher, labels = logits(seed, size)
    first, second = decoupled_parts(student, teacher, labels)
    log_p, log_q = F.log_softmax(teacher, 1), F.log_softmax(student, 1)
    whole = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    others = 1 - log_p.exp().gather(1, labels[:, None])[:, 0]
    assert torch.allclose(first + others * second, whole, rtol=1e-9, atol=1e-12)


def test_with_the_weights_of_the_decomposition_decoupled_is_hinton_s_divergence() -> None:
    teacher = torch.tensor([[3.0, 1.0, 0.0]], dtype=torch.float64).expand(5, 3)  # one p for all
    student, labels = torch.randn(5, 3, dtype=torch.float64), torch.zeros(5).long()
    p = F.softmax(teacher / 4, 1)[0, 0].item()
    found = decoupled_divergence(student, teacher, labels, temperature=4.0, alpha=1, beta=1 - p)
    wanted = F.kl_div(
        F.log_softmax(student / 4, 1), F.softmax(teacher / 4, 1), reduction="batchmean"
    )
    assert torch.isclose(found, 16 * wanted, rtol=1e-12)


def test_decoupled_is_right_where_the_teacher_s_probability_rounds_to_one() -> None:
    """In float32, 1 - p of the label would be 0, and its logarithm infinite."""
    student, teacher = torch.tensor([[9.0, 1.0, -2.0]]), torch.tensor([[60.0, 2.0, 1.0]])
    labels, options = torch.tensor([0]), {"temperature": 0.5, "alpha": 2.0, "beta": 3.0}
    found = decoupled_divergence(student, teacher, labels, **options)
    others = [F.softmax(x[:, 1:].double() / 0.5, 1) for x in (teacher, student)]
    second = (others[0] * (others[0] / others[1]).log()).sum()
    first = -F.log_softmax(student.double() / 0.5, 1)[0, 0]
    assert found.item() == pytest.approx(0.25 * (2 * first + 3 * second).item(), rel=1e-6)
    for temperature in (0.01, 0.001):
        leaf = student.clone().requires_grad_()
        options["temperature"] = temperature
        loss = decoupled_divergence(leaf, teacher.flip(1), labels, **options)
        loss.backward()
        assert torch.isfinite(loss)
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_a_label_alone_among_its_classes_says_nothing_of_others() -> None:
    mask = torch.tensor([[0.0, -torch.inf, -torch.inf]])
    leaf = torch.randn(1, 3).requires_grad_()
    options = {"temperature": 2.0, "alpha": 1.0, "beta": 8.0}
    loss = decoupled_divergence(leaf + mask, mask, torch.tensor([0]), **options)
    loss.backward()
    assert loss == 0
    assert leaf.grad is not None
    assert (leaf.grad == 0).all()


def test_standard_scores_have_mean_zero_and_deviation_one() -> None:
    scores = standardize(5 * torch.randn(4, 6, 3, dtype=torch.float64) + 7)
    assert torch.allclose(scores.mean(1), torch.zeros(4, 3).double(), atol=1e-12)
    assert torch.allclose(scores.std(1, correction=0), torch.ones(4, 3).double())
    masked = standardize(torch.tensor([[1.0, -torch.inf, 3.0]]))
    assert torch.allclose(masked, torch.tensor([[-1.0, -torch.inf, 1.0]]))
    assert torch.equal(standardize(torch.full((2, 7), 0.1)), torch.zeros(2, 7))


@given(seed=st.integers(0, 10_000), size=st.floats(1e-6, 1e6), shift=st.floats(-10, 10, width=32))
def test_the_size_of_either_s_logits_does_not_count_in_standardized(
    seed: int, size: float, shift: float
) -> None:
    student, teacher, labels = logits(seed)
    found = standardized_divergence(student, teacher, labels, temperature=2.0)
    for other in (
        (size * (student + shift), teacher),
        (student, size * (teacher + shift)),
    ):
        scaled = standardized_divergence(*other, labels, temperature=2.0)
        assert torch.isclose(scaled, found, rtol=1e-7, atol=1e-12)


@given(seed=st.integers(0, 10_000), size=st.floats(1e-12, 1e12), shift=st.floats(-10, 10, width=32))
def test_correlation_knows_neither_size_nor_shift(seed: int, size: float, shift: float) -> None:
    x, y, _ = logits(seed)
    for dim in (0, 1):
        found = pearson_distance(x, y, SHOWN, dim=dim)
        scaled = pearson_distance(size * (x + shift), y, SHOWN, dim=dim)
        assert torch.isclose(scaled, found, rtol=1e-7, atol=1e-12)
        assert 0 <= found <= 2
        assert torch.isclose(
            pearson_distance(x, -size * x, SHOWN, dim=dim), 2 * torch.ones(()).double()
        )


def test_lines_of_one_number_have_no_correlation() -> None:
    x, y, _ = (z.float() for z in logits(0))
    flat = y.clone()
    flat[1] = 0.1
    found = pearson_distance(x, flat, SHOWN, dim=1)
    kept = torch.tensor([0, 2, 3])
    assert torch.isclose(found, pearson_distance(x[kept], y[kept], SHOWN[kept], dim=1))
    assert pearson_distance(x, torch.full_like(x, 0.1), SHOWN, dim=1) == 0
    assert pearson_distance(torch.full_like(x, 0.1), x, SHOWN, dim=1) == 1


def test_a_class_that_is_all_but_impossible_counts_as_any_other() -> None:
    """Its squares would be lost in float32."""
    teacher = torch.tensor([[0.0, 2.0, -60.0], [1.0, 0.0, -62.0], [3.0, 1.0, -65.0]])
    options = {"temperature": 1.0, "beta": 0.0, "gamma": 1.0}
    student, labels = teacher[[1, 2, 0]], torch.tensor([0, 1, 0])
    found = correlation_distance(student, teacher, labels, **options)
    wanted = correlation_distance(student.double(), teacher.double(), labels, **options)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
