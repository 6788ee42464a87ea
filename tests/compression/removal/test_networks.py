"""remove_channels: what goes by each criterion, budgets, options and refusals."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from compression.accounting import count_macs, count_parameters
from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import left_out
from compression.quantization import cast, quantize_dynamic, quantize_static, quantize_weights
from compression.removal import remove_channels
from tests.support.channel_nets import Yolo, between
from tests.support.compared import untouched
from tests.support.integer_nets import numbers
from tests.support.nets import images, residual

X = numbers(6, 2)


def rows(*filters: list[float], scales: list[float] | None = None) -> nn.Sequential:
    """Return a network of a linear layer of such filters, whose outputs are summed up."""
    model = nn.Sequential(
        nn.Linear(2, len(filters), bias=False),
        nn.BatchNorm1d(len(filters)),
        nn.Linear(len(filters), 2),
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(filters))
        model[1].weight.copy_(torch.tensor(scales or [1.0] * len(filters)))
        model[2].weight.fill_(1.0)
    return model.eval()


def kept(model: nn.Module, example: Any = X, **options: Any) -> list[list[float]]:
    """Return the filters that stay of three quarters of the products."""
    options = {"macs": 0.75, "multiple_of": 1} | options
    with untouched(model):
        smaller = remove_channels(model, example, **options)
    found: list[list[float]] = smaller[0].weight.tolist()  # type: ignore[index,operator,union-attr]
    return found


FILTERS = [3.0, 0.0], [2.5, 2.5], [0.0, 3.4], [2.6, 2.6]


def test_norms_choose_the_smallest_filter() -> None:
    assert kept(rows(*FILTERS), criterion="l1") == [pytest.approx(row) for row in FILTERS[1:]], (
        "3 is less than 3.4, 5 and 5.2"
    )
    assert kept(rows([3.0, 0.0], [2.0, 2.0], [0.0, 3.4]), criterion="l2", macs=0.67) == [
        pytest.approx([3.0, 0.0]), pytest.approx([0.0, 3.4])
    ], "the squares are 9, 8 and 11.56"  # fmt: skip


def test_the_filter_nearest_to_the_others_goes() -> None:
    # Distances to the others: 5 + 5, 0 between the twins, which are the middle one of three places.
    model = rows([0.0, 0.1], [5.0, 0.0], [0.0, 5.0], [0.1, 0.1])
    assert kept(model, criterion="fpgm")[:2] == [
        pytest.approx([0.0, 0.1]),
        pytest.approx([5.0, 0.0]),
    ]


def test_scales_of_batch_norm_choose() -> None:
    model = rows(*FILTERS, scales=[1.0, -2.0, 0.5, 3.0])
    assert kept(model, criterion="batch-norm") == [pytest.approx(FILTERS[i]) for i in (0, 1, 3)]


def test_gradients_choose() -> None:
    model = rows(*FILTERS)
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[1.0, 0.0, 2.0, 3.0], [-1.0, 0.0, -2.0, -3.0]]))
    batches = [(X, torch.tensor([0, 1, 0, 1, 0, 1]))]
    # The second filter changes nothing, whatever its norm.
    found = kept(model, criterion="taylor", batches=batches)
    assert found == [pytest.approx(FILTERS[i]) for i in (0, 2, 3)]


def test_chance_is_the_seeds() -> None:
    model = rows(*[[float(i), 1.0] for i in range(12)])
    found = [kept(model, criterion="random", macs=0.5, seed=seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def widths(model: nn.Module) -> dict[str, int]:
    """Return the number of channels that each layer makes."""
    return {n: m.weight.shape[0] for n, m in model.named_modules() if hasattr(m, "kernel_size")}


@pytest.mark.parametrize(
    ("budget", "multiple_of", "at_least"),
    [("macs", 1, 0.1), ("macs", 4, 0.1), ("parameters", 2, 0.5), ("parameters", 4, 0.1)],
)
def test_budgets_multiples_and_floors_hold(budget: str, multiple_of: int, at_least: float) -> None:
    model, x = Yolo().eval(), numbers(1, 3, 16, 16)
    smaller = remove_channels(
        model,
        x,
        multiple_of=multiple_of,
        at_least=at_least,
        **{budget: 0.6},  # type: ignore[arg-type]
    )
    count = (lambda m: count_macs(m, x)) if budget == "macs" else count_parameters
    assert 0.35 < count(smaller) / count(model) <= 0.6
    for name, before in widths(model).items():
        width = widths(smaller)[name]
        fitting = multiple_of  # or its half, ... in a layer that it does not fit into twice
        while fitting > 1 and fitting >= before:
            fitting //= 2
        assert width == before or width % fitting == 0, name
        assert width >= at_least * before, name
    assert [t.shape for t in smaller(x)] == [t.shape for t in model(x)]


def test_what_keeps_its_channels_is_listed_with_the_reason() -> None:
    model, x = between(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Softmax(1))
    found = left_out(remove_channels(model, x, macs=0.8, multiple_of=1))
    assert list(found) == ["3.weight", "5.weight"]
    assert found["3.weight"] == "its channels stay: Softmax counts its channels at 4"
    assert found["5.weight"] == "its channels stay: they are the network's outputs"


def test_layers_of_other_kinds_are_listed() -> None:
    layers = nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 4), nn.GRUCell(4, 4)
    found = left_out(remove_channels(nn.Sequential(*layers), X, parameters=0.9, multiple_of=1))
    assert found["2.weight"] == "its channels stay: GRUCell is not known at 3"
    assert found["3.weight_ih"] == "its channels stay: GRUCell is not known"


def test_a_budget_of_all_is_a_copy() -> None:
    model = residual()
    whole = remove_channels(model, images(2), macs=1.0)
    assert whole is not model
    assert torch.equal(whole(images()), model(images()))


class Branches(nn.Module):
    """Asks for its data."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


class Noisy(nn.Module):
    """Computes something else at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(2, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.stem(x))
        return y + torch.rand_like(y)  # type: ignore[no-any-return]


REFUSALS: dict[str, tuple[nn.Module, dict[str, Any], str]] = {
    "no budget": (residual(), {}, "needs one budget, macs, parameters or latency_ms; found none"),
    "two budgets": (residual(), {"macs": 0.5, "parameters": 0.5}, "found macs, parameters"),
    "nothing": (residual(), {"macs": 0.0}, "macs is a fraction above 0 and at most 1, found 0.0"),
    "more": (residual(), {"parameters": 2}, "parameters is a fraction above 0 and at most 1, found 2"),
    "no number": (residual(), {"macs": "half"}, "macs is a fraction above 0 .* found 'half'"),
    "truth": (residual(), {"macs": True}, "macs is a fraction above 0 .* found True"),
    "not a number": (residual(), {"macs": float("nan")}, "macs is a fraction above 0 .* found nan"),
    "criterion": (residual(), {"macs": 0.5, "criterion": "L2"}, "one of l1, l2, .* found 'L2'"),
    "multiple": (residual(), {"macs": 0.5, "multiple_of": 0}, "multiple_of must be .* found 0"),
    "fraction": (residual(), {"macs": 0.5, "at_least": 0}, "at_least is a fraction .* found 0"),
    "seed": (residual(), {"macs": 0.5, "seed": 0.5}, "seed must be a whole number, found 0.5"),
    "time": (residual(), {"latency_ms": 0}, "latency_ms must be above 0, found 0"),
    "out of reach": (
        residual(), {"macs": 0.01}, r"macs=0.01 is out of reach: .* Layers that keep all: 1 \(fc"
    ),
    "no norms": (
        nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Linear(8, 2)),
        {"macs": 0.5, "criterion": "batch-norm", "multiple_of": 1}, "needs batch norms with scales",
    ),
    "no batches": (residual(), {"macs": 0.5, "criterion": "taylor"}, "pass batches="),
    "one layer": (nn.Conv2d(3, 4, 1), {"macs": 0.5}, "the network is one layer of torch, Conv2d"),
    "one sequence": (
        nn.Sequential(nn.Conv2d(3, 4, 1)), {"macs": 0.5}, "0.weight: its channels stay: they are the"
    ),
    "no layer": (nn.ReLU(), {"macs": 0.5}, "no channel of the network can go"),
    "other images": (
        nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, 1)), {"macs": 0.5}, "the example: 0: "
    ),
    "branches": (Branches(), {"macs": 0.5}, "cannot be traced by torch.fx at test_networks.py:"),
    "in parallel": (nn.DataParallel(residual()), {"macs": 0.5}, "one layer of torch, DataParallel"),
    "static": (
        quantize_static(residual(), images()), {"macs": 0.5},
        "the network: expected a network in float, found Static.*; remove channels first",
    ),
    "dynamic": (quantize_dynamic(residual()), {"macs": 0.5}, "fc: expected a network in float"),
    "codes": (quantize_weights(residual()), {"macs": 0.5}, "conv1: expected a network in float"),
    "cast": (cast(residual(), torch.bfloat16), {"macs": 0.5}, "expected .*, found CastModel"),
    "computed": (
        nn.Sequential(weight_norm(nn.Linear(2, 8)), nn.Linear(8, 2)), {"macs": 0.5},
        "0.weight: expected a tensor that is stored",
    ),
    "two inputs": (residual(), {"macs": 0.5, "example": (images(2), images(2))}, "the example: Resid"),
    "no inputs": (residual(), {"macs": 0.5, "example": ()}, "the example: Residual: Expected pos"),
    "no network": ("model", {"macs": 0.5}, "expected a network"),  # type: ignore[dict-item]
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_thing_and_what_was_found(name: str) -> None:
    model, options, message = REFUSALS[name]
    with pytest.raises(CompressionError, match=message):
        remove_channels(model, **({"example": images(2)} | options))


def test_a_network_of_chance_is_refused() -> None:
    with pytest.raises(UnsupportedTypeError, match="computes something else than with zeros"):
        remove_channels(Noisy(), X, macs=0.5, multiple_of=1)


def test_numbers_of_no_format_of_floats_come_out() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(2, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = self.head(self.stem(x))
            return y, y > 0, y.argmax(1), y.masked_fill(y > 9, -torch.inf)

    smaller = remove_channels(Both(), X, macs=0.5, multiple_of=1)
    assert [t.dtype for t in smaller(X)] == [torch.float32, torch.bool, torch.int64, torch.float32]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_of_half_precision_round(dtype: torch.dtype) -> None:
    model = residual().to(dtype)
    smaller = remove_channels(model, images(4).to(dtype), macs=0.5, multiple_of=2)
    assert {p.dtype for p in smaller.parameters()} == {dtype}
    assert re.match(r"Conv2d\(3, [246], ", str(smaller.conv1))
