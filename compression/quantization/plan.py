"""The plan of a quantized network: an item for each node of the float graph, and what is rounded."""

import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.affine import QParams, qparams_from_range
from compression.errors import CompressionError
from compression.quantization.calibration import Range
from compression.quantization.fallback import FloatOperator
from compression.quantization.interpolation import Resizing
from compression.quantization.norm import MOST_FINE_CODES
from compression.quantization.operators import Bounds
from compression.quantization.repeated import Repeated
from compression.quantization.rows import Attended

_UNSEEN = torch.tensor(0.0), torch.tensor(1.0)
"""The range of a value that calibration never saw other than 0: any will do."""


@dataclass(frozen=True, slots=True)
class Alias:
    """`node` has the value of `source`."""

    node: fx.Node
    source: fx.Node


@dataclass(frozen=True, slots=True)
class Copy:
    """`node` stays what it is: a number, or a move of codes; `module` is what a call of it needs."""

    node: fx.Node
    module: nn.Module | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """`node` becomes the call of a module named `name` on the values of `inputs`."""

    node: fx.Node
    name: str
    inputs: tuple[fx.Node, ...]


@dataclass(frozen=True, slots=True)
class Input(Call):
    """The network's input, quantized."""


@dataclass(frozen=True, slots=True)
class Output(Call):
    """A tensor that the network returns, dequantized; no `name` where it holds real numbers already."""


@dataclass(frozen=True, slots=True)
class Return:
    """The end of the network: `node` puts its outputs in their places."""

    node: fx.Node


@dataclass(frozen=True, slots=True)
class Layer(Call):
    """A convolution or linear layer; a second input is the residual that it adds."""

    layer: nn.Module


@dataclass(frozen=True, slots=True)
class Join(Call):
    """An addition, or a concatenation along `dim`."""

    dim: int | None


@dataclass(frozen=True, slots=True)
class Clamp(Call):
    """A clamp that no layer takes in."""

    bounds: Bounds


@dataclass(frozen=True, slots=True)
class MaxPool(Call):
    """A max-pool."""

    pool: nn.Module


@dataclass(frozen=True, slots=True)
class Mean(Call):
    """A mean or an average pool."""

    mean: nn.Module


@dataclass(frozen=True, slots=True)
class Scaling(Call):
    """A multiplication by a number, and an addition of one."""

    factor: float
    offset: float


@dataclass(frozen=True, slots=True)
class Function(Call):
    """A function of single numbers."""

    function: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Product(Call):
    """The product of two values."""


@dataclass(frozen=True, slots=True)
class Move(Call):
    """What puts numbers elsewhere, and does not know codes; `sizes` are what else it is given."""

    function: Callable[..., Tensor]
    sizes: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Interpolation(Call):
    """A linear interpolation, by a factor or to `sizes`, which may be nodes of the float graph."""

    resizing: Resizing
    sizes: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Repeat(Call):
    """A constant that stands in each image, where a layer reads it; the input tells how many."""

    repeated: Repeated


@dataclass(frozen=True, slots=True)
class Norm(Call):
    """A LayerNorm."""

    norm: nn.LayerNorm


@dataclass(frozen=True, slots=True)
class Attention(Call):
    """Scaled dot-product attention."""

    attended: Attended


@dataclass(frozen=True, slots=True)
class Real(Call):
    """A sum or an interpolation that outputs alone read, of real numbers; `sizes` as of a Move."""

    module: nn.Module
    sizes: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Float(Call):
    """What stays in float, on the real numbers that its inputs' codes stand for."""

    operator: FloatOperator


Item = Alias | Copy | Call | Return


@dataclass(frozen=True, slots=True)
class Plan:
    """The items in the order of the graph, and which codes they give.

    `rounded` maps each value that is rounded, by its node's name, to its place in the user's code;
    `codes` maps each node with codes to the one of these names whose scale and zero point it has;
    `constants` are the values of those that no input changes; `fine` are the nodes of a residual
    stream, whose rounding is kept; `tail` are those that stay real between the last layers and the
    outputs.
    """

    items: tuple[Item, ...]
    rounded: Mapping[str, str]
    codes: Mapping[fx.Node, str]
    constants: Mapping[fx.Node, Tensor]
    fine: AbstractSet[fx.Node] = frozenset()
    tail: AbstractSet[fx.Node] = frozenset()

    def fine_input(self, item: Call) -> int | None:
        """Return the place of the input of which an item reads what rounding left, None for none."""
        short = isinstance(item, Norm) and math.prod(item.norm.normalized_shape) <= MOST_FINE_CODES
        if short or (isinstance(item, Join) and item.dim is None):
            return next((i for i, node in enumerate(item.inputs) if node in self.fine), None)
        return None

    def qparams(self, ranges: Mapping[str, Range] | None) -> dict[str, QParams]:
        """Return the parameters of each rounded value, by name; of any range where none is known.

        `ranges` holds the smallest and largest value of each. Raises CompressionError with the place
        of a range that cannot be quantized.
        """
        found = {}
        for name, place in self.rounded.items():
            ends = _UNSEEN if ranges is None else ranges[name]
            if bool(ends[0] == 0) and bool(ends[1] == 0):
                ends = _UNSEEN
            try:
                found[name] = qparams_from_range(*ends, symmetric=False)
            except CompressionError as error:
                raise CompressionError(f"{place}, {name}: {error}") from error
        return found
