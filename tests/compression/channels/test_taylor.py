"""Taylor's criterion by the loss that trains the network, against gradients in float64."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression import remove_channels
from compression.channels.following import follow
from compression.channels.scores import scores_of
from compression.channels.units import widths_of
from compression.errors import CompressionError
from compression.training import Loss
from tests.support.small_torchvision import SMALL


def regressor() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1))


def squared(outputs: Tensor, labels: Tensor, _: Tensor) -> Tensor:
    return F.mse_loss(outputs[:, 0], labels)


def named(outputs: Any, labels: Tensor, inputs: Tensor) -> Tensor:
    """Count edges of the images more, as a loss may that looks at the inputs."""
    per_pixel = F.cross_entropy(outputs["out"], labels, reduction="none", ignore_index=-100)
    return (per_pixel * (1 + inputs[:, 0].abs())).mean()


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = SMALL[name][0]()
    for name, tensor in model.named_buffers():  # statistics of its own in each channel
        if name.endswith("var"):
            tensor.copy_(torch.rand_like(tensor) / 10 + 0.01)
    return model.eval()


Case = tuple[nn.Module, list[tuple[Tensor, Tensor]], Loss | None]
PIXELS = draw(2, 32, 32).abs().long() % 4
CASES: dict[str, Callable[[], Case]] = {
    "regression": lambda: (regressor(), [(draw(n, 6), draw(n)) for n in (5, 9)], squared),
    "segmentation": lambda: (small("lraspp"), [(draw(2, 3, 32, 32), PIXELS)], named),
    "two outputs": lambda: (small("fcn"), [(draw(2, 3, 32, 32), PIXELS)], two_outputs),
    "classes": lambda: (small("squeezenet"), [(draw(3, 3, 40, 40), torch.tensor([1, 0, 4]))], None),
    "classes in bytes": lambda: (
        small("squeezenet"), [(draw(3, 3, 40, 40), torch.tensor([1, 0, 4], dtype=torch.uint8))], None,
    ),
}  # fmt: skip


def two_outputs(outputs: Any, labels: Tensor, inputs: Tensor) -> Tensor:
    return named(outputs, labels, inputs) + 0.4 * F.cross_entropy(outputs["aux"], labels)


@pytest.mark.parametrize("name", CASES)
def test_scores_are_squares_of_weight_times_gradient(name: str) -> None:
    model, batches, loss = CASES[name]()
    before = copy.deepcopy(model.state_dict())
    channels = follow(model, (batches[0][0],))
    found = scores_of(model, channels, widths_of(channels), "taylor", batches=batches, loss=loss)
    double = copy.deepcopy(model).double().eval()
    for x, y in batches:
        outputs, x = double(x.double()), x.double()
        y = y.double() if y.is_floating_point() else y.long()
        (F.cross_entropy(outputs, y) if loss is None else loss(outputs, y, x)).backward()
    wanted = torch.zeros_like(found)
    for place, axis in channels.owned:
        weight = getattr(double.get_submodule(place.module), place.attribute)
        if weight.grad is not None:
            squares = (weight.detach() * weight.grad).square().movedim(axis, 0)
            roots = channels.labels.roots(channels.owned[place, axis])
            for root, row in zip(roots.tolist(), squares.reshape(len(roots), -1), strict=True):
                wanted[root] += row.sum()
    assert (wanted > 0).sum() > 10
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=float(wanted.max()) * 1e-6)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_the_loss_chooses_by_a_score_that_a_hand_computes() -> None:
    model = nn.Sequential(nn.Linear(1, 3, bias=False), nn.Linear(3, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
        model[1].weight.copy_(torch.tensor([[3.0, 2.0, 0.5]]))
    # The output for x = 1 is 8.5, and the gradient of (output - 7.5)^2 in it 2: w g of unit i is 2 w v
    # in both layers, 6, 8 and 3.
    batches = [(torch.ones(1, 1), torch.tensor([7.5]))]
    channels = follow(model, (torch.ones(1, 1),))
    (width,) = widths_of(channels)
    found = scores_of(model, channels, [width], "taylor", batches=batches, loss=squared)
    assert found[width.units].tolist() == pytest.approx([72.0, 128.0, 18.0])
    smaller = remove_channels(
        model, torch.ones(1, 1), parameters=0.67, criterion="taylor", batches=batches, loss=squared,
        multiple_of=1,
    )  # fmt: skip
    assert smaller[0].weight.flatten().tolist() == [1.0, 2.0]


WRONG: dict[str, tuple[Any, Any, str]] = {
    "no loss": (draw(2), None, "batch 1 fails at Sequential: expected .* Float"),
    "detached": (draw(2), lambda out, *_: out.detach().mean(), "batch 1: the loss does not depend"),
    "per image": (draw(2), lambda out, y, _: out[:, 0] - y, r"batch 1: .*found \(2,\) float32"),
    "not a number": (draw(2) / 0, squared, "batch 1: the loss is inf; leave the batch out"),
    "no gradient": (
        draw(2), lambda out, *_: (out * 0).sum().sqrt(), "gradients are infinite or NaN"
    ),
    "its own error": (draw(2), lambda out, *_: out["out"], 'taylor": batch 1 fails at Sequential'),
    "no function": (draw(2), "mse", "batch 1 fails at Sequential: 'str' object is not callable"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_loss_that_scores_nothing_is_named(name: str) -> None:
    labels, loss, message = WRONG[name]
    with pytest.raises(CompressionError, match=message):
        remove_channels(
            regressor(), draw(2, 6), macs=0.5, criterion="taylor", batches=[(draw(2, 6), labels)],
            loss=loss, multiple_of=1,
        )  # fmt: skip


def test_a_dictionary_needs_a_loss() -> None:
    batches = [(draw(2, 3, 32, 32), PIXELS)]
    with pytest.raises(CompressionError, match=r"batch 1: LRASPP: expected one tensor of .*'out'"):
        remove_channels(
            small("lraspp"), batches[0][0], macs=0.5, criterion="taylor", batches=batches
        )
