"""The search for a budget, and what each engine makes of a network."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.peers.pruning import (
    CLOSE,
    OURS,
    REMOVERS,
    SEARCHES,
    largest_within,
    last_layer,
    missing_torch_pruning,
)
from benchmarks.peers.smaller import BASELINE, ROWS, Row, rivals
from compression.accounting import count_macs
from compression.errors import CompressionError

WIDTH = 1000


def linear(width: int) -> nn.Module:
    return nn.Linear(1, width, bias=False)


def cost(net: nn.Module) -> float:
    return float(net.weight.numel())


class Pruner:
    """Leaves a linear layer of a share of WIDTH, in steps."""

    def __init__(self, step: int = 1) -> None:
        self.step = step
        self.asked: list[float] = []

    def __call__(self, share: float) -> nn.Module:
        self.asked.append(share)
        left = int(WIDTH * (1 - share)) // self.step * self.step
        return linear(max(self.step, left))


@pytest.mark.parametrize("budget", [990, 500, 333, 20])
def test_the_search_ends_close_below_the_budget(budget: int) -> None:
    pruner = Pruner()
    found = cost(largest_within(budget, pruner, cost))
    assert CLOSE * budget <= found <= budget
    assert len(pruner.asked) <= SEARCHES


def test_steps_of_the_cost_end_the_search_below_the_budget() -> None:
    pruner = Pruner(step=160)
    assert cost(largest_within(500, pruner, cost)) == 480
    assert len(pruner.asked) <= SEARCHES


def test_the_best_attempt_counts_and_not_the_last() -> None:
    costs = iter([400, 600, 350, *[300] * SEARCHES])
    assert cost(largest_within(500, lambda _: linear(next(costs)), cost)) == 400


def test_a_budget_out_of_reach_is_refused() -> None:
    with pytest.raises(CompressionError, match="no share of channels keeps the budget of 100"):
        largest_within(100, Pruner(step=160), cost)


def test_the_last_layer_is_the_last_that_runs() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body = nn.Linear(3, 2), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    net = Backwards()
    assert last_layer(net, torch.zeros(1, 4)) is net.head
    assert not net.head._forward_hooks


@pytest.mark.parametrize("engine", REMOVERS)
def test_each_engine_keeps_the_budget_the_outputs_and_the_network(engine: str) -> None:
    reason = missing_torch_pruning()
    if reason and engine != OURS:
        pytest.skip(reason)
    net, example = wide(), torch.randn(1, 3, 8, 8)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    smaller = REMOVERS[engine](net, example, 0.5)
    assert 0.2 <= count_macs(smaller, example) / count_macs(net, example) <= 0.5
    assert smaller(example).shape == net(example).shape
    widths = [m.out_channels for m in smaller.modules() if isinstance(m, nn.Conv2d)]
    assert all(width % 16 == 0 for width in widths)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def wide() -> nn.Module:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64 * 16, 4)).eval()


def test_rows_are_compared_at_one_budget_and_stage() -> None:
    assert len({str(row) for row in ROWS}) == len(ROWS)
    assert rivals(BASELINE) == rivals(Row("torch-pruning", 0.5, "tuned")) == []
    for rival in rivals(Row(OURS, 0.25, "int8")):
        assert str(rival) == "torch-pruning-25-int8"
