"""A traced graph computes what the network computes: in place, with sizes, with optional arguments."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import UnsupportedTypeError
from compression.graph import fold_batch_norm, place_of, trace
from compression.quantization import quantize_static
from tests.support.functional import Net, asserted


def relu_on_a_shortcut(net: Any, x: Tensor) -> Tensor:
    a = net.a(x)
    return net.b(net.relu(a)) + a  # type: ignore[no-any-return]


def added_in_place(net: Any, x: Tensor) -> Tensor:
    a = net.a(x)
    b = a
    a += x
    a *= 2
    return net.b(a).relu_() + b  # type: ignore[no-any-return]


def a_number_counted_up(_: Any, x: Tensor) -> Tensor:
    rows = x.shape[0]
    before = rows
    rows += 1
    return x.view(before, -1)[:rows, : x.size(1) * x.shape[2] // 2]


def functions_in_place(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    z = F.relu(y, inplace=True)
    torch.relu_(z)
    return z.add_(1) + y.clamp_(max=1.5)  # type: ignore[no-any-return]


def dropout_in_place(net: Any, x: Tensor) -> Tensor:
    y = net.a(x)
    z = y.flatten(1)
    return net.drop(y).flatten(1) + z  # type: ignore[no-any-return]


FORWARDS = (
    relu_on_a_shortcut, added_in_place, a_number_counted_up, functions_in_place, dropout_in_place,
)  # fmt: skip


def network(how: Callable[[Any, Tensor], Any]) -> nn.Module:
    torch.manual_seed(0)
    layers = {"a": nn.Conv2d(3, 3, 3, padding=1), "b": nn.Conv2d(3, 3, 1)}
    return Net(how, relu=nn.ReLU(inplace=True), drop=nn.Dropout(0.5, inplace=True), **layers).eval()


@pytest.mark.parametrize("how", FORWARDS)
@torch.no_grad()
def test_a_trace_computes_what_the_network_computes(how: Callable[[Any, Tensor], Any]) -> None:
    net, x = network(how), torch.randn(2, 3, 4, 4)
    before = x.clone()
    wanted = net(x.clone())
    assert torch.equal(trace(net)(x), wanted)
    assert torch.equal(fold_batch_norm(net)(x), wanted)
    assert torch.equal(x, before), "a functional graph leaves its input alone"


def test_a_write_to_memory_that_a_view_still_reads_is_refused_with_its_line() -> None:
    def stale(net: Any, x: Tensor) -> Tensor:
        rows = x.view(x.shape[0], -1)
        x += 1
        return rows * 2

    with pytest.raises(UnsupportedTypeError, match=r"test_tracing.py:\d+.* in place while"):
        trace(network(stale))


def test_a_write_without_a_twin_is_refused() -> None:
    def zeroed(net: Any, x: Tensor) -> Tensor:
        return net.a(x).zero_()  # type: ignore[no-any-return]

    with pytest.raises(UnsupportedTypeError, match=r"zero_ writes a tensor in place"):
        trace(network(zeroed))


def test_a_node_knows_its_module_and_its_line() -> None:
    traced = trace(network(relu_on_a_shortcut))
    places = {node.name: place_of(node) for node in traced.graph.nodes}
    assert places["b"].startswith("b (test_tracing.py:")
    assert places["add"].startswith("(test_tracing.py:")


def test_a_hook_and_a_patched_forward_are_refused() -> None:
    hooked = network(relu_on_a_shortcut)
    hooked.get_submodule("b").register_forward_hook(lambda *_: None)
    with pytest.raises(UnsupportedTypeError, match="b: it has forward hooks"):
        trace(hooked)
    patched: Any = network(relu_on_a_shortcut)
    patched.a.forward = lambda x: x
    with pytest.raises(UnsupportedTypeError, match="a: its forward was replaced"):
        trace(patched)


def test_an_error_of_the_forward_names_its_line() -> None:
    def branching(_: Any, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    with pytest.raises(
        UnsupportedTypeError, match=r"Net cannot be traced .* at test_tracing.py:\d+"
    ):
        trace(network(branching))


@torch.no_grad()
def test_a_norm_behind_a_linear_layer_stays_for_it_may_read_tokens() -> None:
    net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8, affine=False)).eval()
    net[1].running_mean.uniform_(-1, 1)  # type: ignore[union-attr,operator]
    for x in (torch.randn(4, 5), torch.randn(4, 8, 5)):
        assert torch.allclose(fold_batch_norm(net)(x), net(x), atol=1e-6)


def halves(net: Any, x: Tensor) -> Tensor:
    parts = list(net.a(x).chunk(2, 1))  # as Ultralytics' C2f has it
    parts.extend(part.relu() for part in torch.split(net.b(x), [1, 2], dim=1))
    two, one = map(torch.abs, x.split(split_size=[2, 1], dim=1))
    return torch.cat([*parts, two * one], 1)


@pytest.mark.parametrize("how", [halves, asserted])
@torch.no_grad()
def test_parts_are_iterated_and_sizes_asserted(how: Callable[[Any, Tensor], Tensor]) -> None:
    net, x = network(how).eval(), torch.randn(2, 3, 4, 4)
    assert torch.equal(trace(net)(x), net(x))


def test_a_split_that_does_not_tell_its_parts_is_refused() -> None:
    with pytest.raises(
        UnsupportedTypeError, match=r"iterated\); torch.fx follows no branch or loop"
    ):
        trace(network(lambda net, x: torch.cat(list(net.a(x).unbind(1)), 0)))


def test_a_wrapper_is_refused_by_what_holds_the_network() -> None:
    net = network(relu_on_a_shortcut)
    with pytest.raises(
        UnsupportedTypeError, match=r"the network: DataParallel .* attribute module"
    ):
        trace(nn.DataParallel(net))
    wrapped: Any = torch.compile(net)
    with pytest.raises(UnsupportedTypeError, match=r"0: OptimizedModule .* attribute _orig_mod"):
        trace(nn.Sequential(wrapped))


def test_attention_is_placed_in_the_users_code() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.MultiheadAttention(4, 2)

        def forward(self, x: Tensor) -> Any:
            return self.a(x, x, x)

    with pytest.raises(UnsupportedTypeError, match=r"at a \(test_tracing.py:\d+\)"):
        quantize_static(Attends(), torch.randn(3, 5, 4))
