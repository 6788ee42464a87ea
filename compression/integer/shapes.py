"""The shapes of a quantized network's values."""

from typing import Any

import torch
from torch import Tensor, fx

from compression.quantization import StaticQuantizedModel


class _Shapes(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[fx.Node, list[int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = list(value.shape)
        return value


@torch.no_grad()
def shapes_of(model: StaticQuantizedModel, example: Tensor) -> dict[fx.Node, list[int]]:
    """Return the shape of each node's value for inputs shaped like `example`."""
    interpreter = _Shapes(model.network)
    interpreter.run(example)
    return interpreter.found
