"""The settings of layers that slide a window, each written out for every dimension of an image."""

from typing import Any

from torch import nn

from compression.errors import UnsupportedTypeError
from compression.quantization import modules as q


def each(value: Any, dims: int) -> list[int]:
    """Return a setting of each of `dims` dimensions, given for all or for each."""
    return [value] * dims if isinstance(value, int) else [int(v) for v in value]


def pair(value: Any) -> list[int]:
    """Return a setting of rows and columns, given for both or for each."""
    return each(value, 2)


def padding_of(layer: q.QuantizedLayer) -> tuple[list[int], list[int]]:
    """Return the zeros before and after each dimension of a convolution's input."""
    dims = layer.codes.ndim - 2
    padding = layer.options["padding"]
    if padding == "same":  # torch puts the odd one after
        sizes = zip(each(layer.options["dilation"], dims), layer.codes.shape[2:], strict=True)
        spans = [d * (k - 1) for d, k in sizes]
        return [span // 2 for span in spans], [span - span // 2 for span in spans]
    sides = each(0 if padding == "valid" else padding, dims)
    return sides, sides


def slide_of(layer: q.QuantizedLayer) -> list[list[int]]:
    """Return a convolution's stride, padding and dilation, each of all dimensions.

    UnsupportedTypeError where it pads one side more than the other.
    """
    before, after = padding_of(layer)
    if before != after:
        raise UnsupportedTypeError("the integer kernels pad both sides alike: even kernel")
    options, dims = layer.options, layer.codes.ndim - 2
    return [each(options["stride"], dims), before, each(options["dilation"], dims)]


def pool_window(pool: Any) -> list[list[int]]:
    """Return a max-pool's size, stride, padding and dilation, each of all dimensions."""
    dims = POOL_DIMS.get(type(pool), 2)
    stride = pool.kernel_size if pool.stride is None else pool.stride
    return [each(v, dims) for v in (pool.kernel_size, stride, pool.padding, pool.dilation)]


POOL_DIMS: dict[type[nn.Module], int] = {
    nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3, nn.AvgPool1d: 1, nn.AvgPool2d: 2,
    nn.AvgPool3d: 3, nn.AdaptiveAvgPool1d: 1, nn.AdaptiveAvgPool2d: 2, nn.AdaptiveAvgPool3d: 3,
    nn.AdaptiveMaxPool1d: 1, nn.AdaptiveMaxPool2d: 2, nn.AdaptiveMaxPool3d: 3,
}  # fmt: skip
"""How many last dimensions of its input a pool slides over."""
