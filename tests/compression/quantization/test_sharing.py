"""What is only concatenated has the range of the concatenation: its codes are copied."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compression.quantization import modules as q
from compression.quantization import quantize_aware, quantize_static
from compression.training import Recipe, Split
from tests.support.integer_nets import numbers

Forward = Callable[[nn.Module, Tensor, Tensor], Tensor]


class TwoParts(nn.Module):
    """Two convolutions of ranges far apart, and how they are put together."""

    def __init__(self, how: Forward) -> None:
        super().__init__()
        self.a, self.b, self.pool = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.MaxPool2d(2, 1)
        nn.init.uniform_(self.b.weight, -9, 9)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, self.a(x), self.b(x)).mean((2, 3))


def nested(_: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([torch.cat([a, b], 1), a], 1)


@pytest.mark.parametrize(
    ("how", "same"),
    [
        (lambda _, a, b: torch.cat([a, b], 1), [[True, True]]),
        (lambda net, a, b: torch.cat([net.pool(a), net.pool(b)], 1), [[True, True]]),
        (lambda _, a, b: torch.cat([a.flip(2), torch.relu(b)], 1), [[True, True]]),
        (lambda _, a, b: torch.cat([a, a + b], 1), [[False, True]]),  # the sum reads it, too
        (lambda _, a, b: torch.cat([a, b], 1) + torch.cat([b, a], 1), [[True, True]] * 2),
        (nested, [[True, True]] * 2),
    ],
    ids=["parts", "pooled", "moved", "read elsewhere", "twice", "nested"],
)
def test_parts_have_the_codes_of_the_concatenation(how: Forward, same: list[list[bool]]) -> None:
    torch.manual_seed(0)
    network = quantize_static(TwoParts(how).eval(), numbers(8, 3, 6, 6))
    joins = [m for m in network.modules() if isinstance(m, q.QuantizedJoin) and m.dim is not None]
    assert [_same(join) for join in joins] == same


def test_concatenations_of_ranges_far_apart_keep_their_own() -> None:
    """A dense block whose range grows: its first layers would have few codes."""
    torch.manual_seed(0)
    grown = TwoParts(lambda _, a, b: torch.cat([a, a], 1) + torch.cat([a, b], 1))
    network = quantize_static(grown.eval(), numbers(8, 3, 6, 6))
    joins = [m for m in network.modules() if isinstance(m, q.QuantizedJoin) and m.dim is not None]
    assert joins[0].output_scale * 2 < joins[1].output_scale
    assert [_same(join) for join in joins] == [[True, True], [False, True]]


def test_training_rounds_the_same_values() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(TwoParts(lambda _, a, b: torch.cat([a, b], 1)), nn.Linear(8, 2)).eval()
    images, labels = numbers(16, 3, 6, 6), torch.arange(16) % 2
    recipe = Recipe(epochs=1, batch_size=8, learning_rate=0.001)
    network = quantize_aware(model, Split(images, labels, nn.Identity()), recipe, images)
    (join,) = (m for m in network.modules() if isinstance(m, q.QuantizedJoin))
    assert _same(join) == [True, True]


def _same(join: q.QuantizedJoin) -> list[bool]:
    scales = join.input_scales == join.output_scale
    return (scales & (join.input_zero_points == join.output_zero_point)).tolist()


def test_one_rounding_errs_less_than_two(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, x = TwoParts(lambda _, a, b: torch.cat([a, b], 1)).eval(), numbers(64, 3, 6, 6)
    with torch.no_grad():
        wanted = model(x)
    shared = quantize_static(model, x)(x)
    monkeypatch.setattr("compression.quantization.static.shared_ranges", lambda _, found: found)
    apart = quantize_static(model, x)(x)
    assert (shared - wanted).norm() < (apart - wanted).norm()
