"""What static INT8 does not know, it refuses by name; a calibration set that cannot be used, too."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError
from compression.quantization import quantize_dynamic, quantize_static
from tests.support.functional import Net


def conv(*sizes: int, **options: Any) -> nn.Module:
    return nn.Conv2d(*sizes, **options)


def block(how: Callable[[Any, Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Net(how, a=conv(3, 3, 3, padding=1))


def drawn_at_random(_: Any, x: Tensor) -> Tensor:
    return x + torch.rand(1) + 1  # a constant of the trace, another at each call


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "two inputs": (lambda: TwoInputs(), "needs a network of one input tensor, found x, y"),
    "no output": (
        block(lambda s, x: [s.a(x).shape]),
        "returns tensors, alone or in .* a size at '0'",
    ),
    "an unknown operator": (block(lambda s, x: s.a(x).cumsum(1)), r"cumsum at \(test_refusals"),
    "active dropout": (
        block(lambda s, x: F.dropout(s.a(x))),
        "stays active in eval|gives other outputs",
    ),
    "an output that is a parameter": (lambda: Shifted(), "found a constant"),
    "randomness": (lambda: Net(drawn_at_random, a=conv(3, 3, 1)), "other outputs"),
    "no layer": (lambda: nn.Sequential(nn.ReLU()), "no compressible layer"),
    "padding by another rule": (
        lambda: nn.Sequential(conv(3, 3, 3, padding=1, padding_mode="circular")),
        r"Conv2d that pads by circular at 0; .* quantize_static\(fallback=True\)",
    ),
    "an input by name": (
        lambda: ByName(),
        r"cannot take calibration inputs .* positional argument",
    ),
    "codes already": (
        lambda: nn.Sequential(quantize_dynamic(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)))),
        "0.1: expected layers in float, found DynamicQuantizedLinear, .* float network",
    ),
    "infinite outputs": (block(lambda s, x: s.a(x) / 1e-45 / 1e-45), "NaN or infinite"),
}


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = conv(3, 3, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) + y  # type: ignore[no-any-return]


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = conv(3, 3, 1)

    def forward(self, *, x: Tensor) -> Tensor:
        return self.a(x)  # type: ignore[no-any-return]


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.relu = conv(3, 3, 1), nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, _: Tensor) -> Tensor:
        return self.relu + 1


@pytest.mark.parametrize("name", REFUSED)
@torch.no_grad()
def test_what_is_not_known_is_refused_by_name(name: str) -> None:
    factory, match = REFUSED[name]
    with pytest.raises(CompressionError, match=match):
        quantize_static(factory().eval(), torch.rand(4, 3, 8, 8))


@pytest.mark.parametrize(
    ("calibration", "match"),
    [
        ([], "calibration set is empty"),
        ([{"x": 1}], "batch 1: expected a tensor of inputs"),
        (torch.rand(4, 5, 8, 8), r"cannot take calibration inputs of shape \(4, 5, 8, 8\)"),
        (torch.full((4, 3, 8, 8), torch.nan), "NaN or infinite"),
        (3, "expected a tensor of inputs or an iterable"),
    ],
    ids=["empty", "dictionaries", "channels", "nan", "number"],
)
def test_a_calibration_set_that_cannot_be_used_is_told(calibration: Any, match: str) -> None:
    with pytest.raises(CompressionError, match=match):
        quantize_static(conv(3, 3, 1), calibration)


def test_whole_numbers_are_told_what_takes_them() -> None:
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2))
    with pytest.raises(CompressionError, match=r"found torch.int64: .* or take quantize_dynamic"):
        quantize_static(net, torch.randint(0, 9, (4, 5)))
