"""Functions of codes: what each of 256 codes becomes, and products of two."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.affine import QParams, qparams_from_range
from compression.errors import UnsupportedTypeError
from compression.quantization import quantize_static
from compression.quantization.functions import Applied, QuantizedFunction, QuantizedProduct
from compression.storage import load, save
from tests.support.integer_nets import Gates, Moves, numbers
from tests.support.tricky_nets import Net

CODES = torch.arange(-128, 128).to(torch.int8)
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "SiLU": nn.SiLU(), "hardswish": F.hardswish, "GELU": nn.GELU(approximate="tanh"),
    "a method": Applied("sigmoid", (), {}), "an argument": Applied(F.leaky_relu, (0.3,), {}),
    "a weight": nn.PReLU(),
}  # fmt: skip


def qparams(low: float, high: float) -> QParams:
    return qparams_from_range(torch.tensor(low), torch.tensor(high), symmetric=False)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_code_is_the_nearest_to_the_function_of_what_it_stands_for(name: str) -> None:
    before, after = qparams(-5.0, 3.0), qparams(-1.0, 3.0)
    function = FUNCTIONS[name]
    found = QuantizedFunction(function, before, after)(CODES)
    real = (CODES.double() - before.zero_point) * before.scale.double()
    exact = function.double() if isinstance(function, nn.Module) else function
    with torch.no_grad():
        wanted = exact(real).clamp(-1.0, 3.0)
    error = (found.double() - after.zero_point) * after.scale.double() - wanted
    # Half a step; and what the zero point, a whole number, moves the ends of the range by.
    assert float(error.abs().max()) <= 0.5 * float(after.scale) * (1 + 1e-6) + 0.5 * float(
        after.scale
    )
    inside = (wanted > -1.0 + float(after.scale)) & (wanted < 3.0 - float(after.scale))
    assert float(error[inside].abs().max()) <= 0.5 * float(after.scale) * (1 + 1e-6)


def test_a_function_without_a_value_counts_as_zero() -> None:
    found = QuantizedFunction(torch.log, qparams(-1.0, 1.0), qparams(-3.0, 0.5))
    negative = found(torch.tensor([-128], dtype=torch.int8))
    assert int(negative) == int(found.output_zero_point)


def test_a_product_is_exact_before_it_is_rounded() -> None:
    one, two, after = qparams(-2.0, 3.0), qparams(-0.5, 1.0), qparams(-2.0, 3.0)
    x, y = torch.meshgrid(CODES, CODES, indexing="ij")
    found = QuantizedProduct([one, two], after)(x, y)
    exact = (x.long() - one.zero_point) * (y.long() - two.zero_point)
    ratio = one.scale.double() * two.scale.double() / after.scale.double()
    wanted = (exact * ratio.float()).round() + after.zero_point
    assert torch.equal(found, wanted.clamp(-128, 127).to(torch.int8))


@pytest.mark.parametrize(("kind", "shape"), [(Gates, (3, 3, 6, 5)), (Moves, (3, 3, 7, 8))])
@pytest.mark.parametrize("entropy_coded", [False, True])
def test_files_hold_tables(
    tmp_path, kind: type[nn.Module], shape: tuple[int, ...], entropy_coded
) -> None:
    torch.manual_seed(0)
    x = numbers(*shape)
    small = quantize_static(kind().eval(), x)
    save(small, tmp_path / "small.safetensors", entropy_coded=entropy_coded)
    assert torch.equal(load(tmp_path / "small.safetensors", kind)(x), small(x))


REFUSED: dict[str, tuple[Callable[[Net, Tensor], Tensor], str]] = {
    "several at once": (
        lambda s, x: torch.cat(s.a(x).chunk(2, 1), 1),
        "of several tensors at once",
    ),
    "a size": (lambda s, x: s.a(x) * x.shape[0], "mul of sizes"),
    "whole numbers": (
        lambda s, x: F.silu(s.a(x)) * s.w.long(),
        "constants that are no real numbers",
    ),
    "a fraction as power": (lambda s, x: s.a(x).abs() ** 0.5, "does not know the operator pow"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_table_holds_is_refused(name: str) -> None:
    how, said = REFUSED[name]
    net = Net(how, a=nn.Conv2d(3, 4, 1))
    net.w = nn.Parameter(torch.ones(4, 1, 1))
    with pytest.raises(UnsupportedTypeError, match=said):
        quantize_static(net, numbers(2, 3, 4, 4) ** 2)
