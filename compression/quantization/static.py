"""Static INT8: calibrate a traced network's activations, then lower it onto integer codes."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.errors import CompressionError
from compression.layers import compressible_layers, fold_batch_norm, norms_as_convolutions
from compression.quantization.lowering import Lowering, Range


class StaticQuantizedModel(nn.Module):
    """A network on int8 codes from its input to its last layer, run by the reference executor.

    The arithmetic is that of integers, carried out in float32: its accuracy is that of INT8, its
    speed is not (see modules.py).
    """

    simulated = True

    def __init__(self, network: fx.GraphModule) -> None:
        """Take over a lowered network."""
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Return real logits of real inputs."""
        outputs: Tensor = self.network(inputs)
        return outputs


def quantize_static(
    model: nn.Module, calibration: Tensor | Iterable[Tensor]
) -> StaticQuantizedModel:
    """Return `model` as an INT8 network: batch norm folded, int8 weights and activations.

    `calibration` is one batch of prepared inputs or several; min and max over all of them give the
    activations' ranges. Knows convolutions, linear layers, ReLU and ReLU6, additions, concatenation,
    pooling, flatten and dropout; another operator raises UnsupportedTypeError with its name.
    Weights symmetric per channel, activations affine per tensor (Jacob et al. 2018, arXiv:1712.05877).
    """
    compressible_layers(model)
    folded = norms_as_convolutions(fold_batch_norm(model))
    batches = [calibration] if isinstance(calibration, Tensor) else calibration
    observer = _Observer(folded)
    device = next(model.parameters()).device
    with torch.no_grad():
        for batch in batches:
            if len(batch):
                observer.run(batch.to(device))
    if not observer.ranges:
        raise CompressionError("the calibration set is empty: pass some training images' inputs")
    return StaticQuantizedModel(Lowering(folded, observer.ranges).lower())


def empty_static(model: nn.Module) -> StaticQuantizedModel:
    """Return the INT8 network of `model`'s architecture, its ranges still to be loaded."""
    return StaticQuantizedModel(Lowering(norms_as_convolutions(fold_batch_norm(model)), None).lower())


class _Observer(fx.Interpreter):
    """Runs a network and keeps the smallest and largest value of each node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.ranges: dict[str, Range] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point() and n.op != "output":
            low, high = value.amin().cpu(), value.amax().cpu()
            if n.name in self.ranges:
                before = self.ranges[n.name]
                low, high = torch.minimum(low, before[0]), torch.maximum(high, before[1])
            self.ranges[n.name] = low, high
        return value
