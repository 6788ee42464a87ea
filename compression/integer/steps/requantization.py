"""From sums of products to codes: the bias and the factors of a layer."""

import torch
from torch import Tensor

from compression.affine import INT8_MAX
from compression.errors import UnsupportedTypeError
from compression.integer.codes import INT32_LIMIT
from compression.integer.steps.target import Target
from compression.quantization import modules as q


def requantization(
    layer: q.QuantizedLayer, weights: Tensor, target: Target
) -> tuple[Tensor, Tensor]:
    """Return the bias, with the products of the input's zero point, and the multipliers."""
    sums = weights.flatten(1).long().sum(1)
    bias = layer.bias.long() - target.zero(layer.input_zero_point) * sums
    most = weights[0].numel() * target.largest * INT8_MAX
    if most + int(bias.abs().max()) >= INT32_LIMIT:
        raise UnsupportedTypeError(
            f"the {target.name} executor's sums of a layer do not fit into int32"
        )
    scale = layer.input_scale.double() * layer.weight_scale.double()
    return bias.int(), (scale / unit_of(layer).double()).float()


def unit_of(layer: q.QuantizedLayer) -> Tensor:
    """Return what one step of a layer's output is worth: 1 where it is real."""
    return torch.ones(()) if layer.output_scale is None else layer.output_scale
