"""A metric gives each example a value, is what its name says, and says what it cannot judge."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.training import (
    F1,
    MEAN_ABSOLUTE_ERROR,
    MEAN_IOU,
    TOP_1,
    Metric,
    Split,
    correct_images,
    predict,
    scores,
    top_k,
)
from compression.training.checks import check_labels
from tests.support.nets import mlp, split


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_mean_iou_is_that_of_scikit_learn_image_by_image() -> None:
    logits, masks = drawn(6, 4, 5, 7), drawn(6, 5, 7, seed=1).mul(2).round().long().clamp(0, 3)
    masks[0] = 1  # an image of one class
    right = [
        jaccard_score(m.flatten(), p.flatten(), average="macro", labels=torch.cat([m, p]).unique())
        for m, p in zip(masks, logits.argmax(1), strict=True)
    ]
    assert MEAN_IOU(logits, masks).tolist() == pytest.approx(right)
    assert MEAN_IOU({"aux": None, "out": logits}, masks.to(torch.uint8)).tolist() == pytest.approx(
        right
    )
    ignored = masks.masked_fill(torch.arange(7) > 3, -100)
    assert torch.equal(MEAN_IOU(logits, ignored), MEAN_IOU(logits[..., :4], masks[..., :4]))


def test_f1_is_that_of_scikit_learn_example_by_example() -> None:
    logits, wanted = drawn(20, 5), (drawn(20, 5, seed=1) > 0.3).float()
    wanted[3], logits[3] = 0, -1
    right = f1_score(wanted, logits > 0, average="samples", zero_division=1.0)
    assert F1(logits, wanted).mean().item() == pytest.approx(right)
    assert F1(logits, wanted)[3] == 1


def test_errors_and_first_choices() -> None:
    outputs, targets = drawn(8, 3), drawn(8, 3, seed=1)
    right = (outputs - targets).abs().mean(1).double()
    assert torch.allclose(MEAN_ABSOLUTE_ERROR(outputs, targets), right)
    assert torch.allclose(MEAN_ABSOLUTE_ERROR(outputs[:, 0], targets[:, 0]).mean(),
                          (outputs - targets)[:, 0].abs().mean().double())  # fmt: skip
    assert not MEAN_ABSOLUTE_ERROR.higher_is_better
    labels = torch.arange(8) % 3
    assert torch.equal(TOP_1(outputs, labels), outputs.argmax(1) == labels)
    assert torch.equal(TOP_1(outputs, labels), top_k(1)(outputs, labels))
    assert top_k(5)(outputs, labels).all(), "more than there are classes"


def of_wrong(values: Any) -> Callable[[Any, Tensor], Any]:
    return lambda *_: values


WRONG: dict[str, tuple[Metric, str]] = {
    "NaN": (Metric("m", of_wrong(torch.tensor([0.0, torch.nan] * 4))), "found nan for example 1"),
    "infinite": (Metric("m", of_wrong(torch.full((8,), torch.inf))), "found inf for example 0"),
    "one number": (Metric("m", of_wrong(torch.ones(()))), r"a tensor \(8,\) .* found \(\) float32"),
    "of pixels": (Metric("m", of_wrong(torch.ones(8, 4))), r"found \(8, 4\) float32; take the mean"),
    "no tensor": (Metric("m", of_wrong(0.5)), "found float"),
    "raises": (Metric("m", lambda o, _: o["mask"]), "metric m fails on targets .*Error"),
    "of one shape": (MEAN_ABSOLUTE_ERROR, r"metric MAE: expected .* found \(8, 4\) .* \(8,\)"),
    "no pixels": (MEAN_IOU, r"metric mean IoU: expected logits \(N, classes, ...\) and a class per"),
    "no labels": (F1, r"metric F1: expected logits \(N, labels\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_value_per_example_is_named(case: str) -> None:
    metric, message = WRONG[case]
    model = mlp().train()
    with pytest.raises(CompressionError, match=message):
        scores(model, split(8), metric)
    assert model.training, "its flag is restored"


def test_classes_and_outputs_that_a_metric_cannot_find_are_named() -> None:
    with pytest.raises(CompressionError, match=r"mean IoU: expected classes 0\.\.2, found"):
        MEAN_IOU(drawn(2, 3, 4, 4), torch.full((2, 4, 4), 3))
    with pytest.raises(CompressionError, match="expected finite numbers, found nan for example 0"):
        MEAN_IOU(drawn(1, 3, 4), torch.full((1, 4), -100))
    with pytest.raises(CompressionError, match=r"named out or logits, found dict of first"):
        TOP_1({"first": drawn(2, 3)}, torch.zeros(2))
    with pytest.raises(CompressionError, match="one value per example"):
        TOP_1(drawn(2, 3, 4), torch.zeros(2, 4))
    with pytest.raises(CompressionError, match="top_k: expected a whole number from 1, found 0"):
        top_k(0)
    with pytest.raises(CompressionError, match="found NaN, the first of image 2"):
        check_labels(torch.tensor([[0.5], [0.5], [torch.nan]]), torch.Size((3, 2)))


class TwoAnswers(nn.Module):
    """Answers in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> dict[str, Any]:
        logits = self.net(x)
        return {"logits": logits, "more": [logits.argmax(1)]}


def test_outputs_in_a_dictionary_come_back_in_one() -> None:
    model, images = TwoAnswers(), split(9)
    found = predict(model, images, batch_size=4)
    assert torch.allclose(found["logits"], predict(model.net, images))
    assert torch.equal(found["more"][0], found["logits"].argmax(1))
    assert torch.equal(
        scores(model, images, TOP_1, batch_size=4), correct_images(model.net, images)
    )
    numbers = Split(drawn(5, 3), drawn(5, 3), prepare=lambda x: x)
    assert scores(nn.Identity(), numbers, MEAN_ABSOLUTE_ERROR).tolist() == [0.0] * 5
