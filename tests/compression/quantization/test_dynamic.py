"""The arithmetic of a dynamically quantized linear layer."""

import pytest
import torch
from torch import nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.quantization import DynamicQuantizedLinear, quantize_dynamic
from compression.quantization.products import integer_matmul


@torch.no_grad()
def test_a_sum_longer_than_an_int32_holds_is_exact() -> None:
    layer = nn.Linear(150_000, 2, bias=False)
    layer.weight.fill_(1.0)
    found = DynamicQuantizedLinear(layer, "")(torch.ones(1, 150_000))
    # the scales are rounded once each
    assert found.flatten().tolist() == pytest.approx([150_000] * 2, rel=1e-6)


@pytest.mark.parametrize("columns", [1, 2, 9])
def test_products_of_one_column_are_exact(columns: int) -> None:
    a, b = torch.arange(-9, 9, dtype=torch.int8)[:, None], torch.arange(columns, dtype=torch.int8)
    assert torch.equal(integer_matmul(a, b[:, None].t()).long(), a.long() * b.long())


def test_inputs_that_a_linear_layer_does_not_take_are_refused() -> None:
    layer = quantize_dynamic(nn.Linear(4, 3))
    with pytest.raises(UnsupportedTypeError, match=r"real inputs, found torch\.int64"):
        layer(torch.ones(2, 4, dtype=torch.int64))
    for shape in ((2, 8), (4, 2), ()):
        with pytest.raises(CompressionError, match="a linear layer of 4 inputs expects"):
            layer(torch.ones(shape))
