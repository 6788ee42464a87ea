"""Functions of codes: of one, as a table, and products of two."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compression.affine import INT8_MAX, INT8_MIN, QParams
from compression.layers import copy_model
from compression.quantization.codes import Codes, CodesOfSeveral


def apply(target: Any, args: Any, kwargs: Any) -> Any:
    """Return what a layer or a function gives, or a tensor's method where `target` is a text."""
    function = getattr(torch.Tensor, target) if isinstance(target, str) else target
    return function(*args, **kwargs)


class Applied:
    """A function or a tensor's method of one tensor, and what else it is told."""

    def __init__(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Apply `target`, a method where it is a text, to a tensor and plain arguments."""
        self.target, self.args, self.kwargs = target, args, dict(kwargs)

    def __call__(self, x: Tensor, *others: Any) -> Tensor:
        """Return the function's value of `x`, and of `others` that are known at the call only."""
        value: Tensor = apply(self.target, (x, *others, *self.args), self.kwargs)
        return value


class QuantizedFunction(Codes):
    """A function of single numbers: the output's code of each of the 256 input's codes."""

    table: Tensor

    def __init__(
        self, function: Callable[[Tensor], Tensor], inputs: QParams, output: QParams
    ) -> None:
        """Look `function` up in float64 at what each code stands for; NaN counts as 0."""
        super().__init__(output)
        if isinstance(function, nn.Module):
            function = copy_model(function).cpu().double()
        with torch.no_grad():
            codes = torch.arange(INT8_MIN, INT8_MAX + 1)
            values = function((codes - inputs.zero_point.cpu()) * inputs.scale.cpu().double())
        steps = values.masked_fill(values.isnan(), 0) / output.scale.cpu().double()
        self.register_buffer("table", self.encode(steps).to(inputs.scale.device))

    def forward(self, codes: Tensor) -> Tensor:
        """Return the function's codes."""
        return self.table[codes.int() - INT8_MIN]


class QuantizedProduct(CodesOfSeveral):
    """The product of two values on codes, one of them broadcast where it is smaller, requantized."""

    def ratio(self) -> Tensor:
        """Return what makes products of codes units of the output; float32, 0-dim."""
        product = self.input_scales.double().prod()
        return (product / self.output_scale.double()).float()

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the codes of the product; it is exact before it is rounded."""
        x, y = self.centred(inputs)
        return self.encode(x * y * self.ratio())
