"""What stands in each image: values that constants and the number of images alone tell.

A class token, a detector's queries, and what a decoder's first layers make of these are the same for
every image: they are found out once, and nothing of them is left to compute.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from compression.affine import QParams
from compression.quantization.codes import Codes
from compression.quantization.functions import apply
from compression.quantization.image_axis import counts_of_images

BATCHES = (2, 3)
"""Numbers of images whose values are compared."""
TOLERANCE = 1e-5
"""Of the largest number: products of other batches are summed in another order."""


class Repeated(NamedTuple):
    """A value for one image, and the axis along which each image has it once."""

    value: Tensor
    axis: int


class RepeatedCodes(Codes):
    """Codes that stand in each image, once along an axis."""

    parameter_buffers = ("held",)
    held: Tensor

    def __init__(self, codes: Tensor, axis: int, output: QParams) -> None:
        """Hold `codes` of `output`, one image's."""
        super().__init__(output)
        self.register_buffer("held", codes)
        self.axis = axis

    def forward(self, images: Tensor) -> Tensor:
        """Return the codes for as many images."""
        sizes = [-1] * self.held.ndim
        sizes[self.axis] = len(images)
        return self.held.expand(sizes)


@torch.no_grad()
def repeated_constants(
    folded: fx.GraphModule, constants: Mapping[fx.Node, Tensor], numbers: set[fx.Node]
) -> dict[fx.Node, Repeated]:
    """Return the values of a network that are the same for each image, and stand in each.

    `constants` are those that no number of images changes, `numbers` the nodes of sizes. Each operator
    of such values is tried on two numbers of images: it must give each image the same, along an axis
    of their own.
    """
    known: dict[fx.Node, tuple[Any, ...]] = {
        node: (value,) * len(BATCHES) for node, value in constants.items()
    }
    found: dict[fx.Node, Repeated] = {}
    layers, counted = dict(folded.named_modules()), counts_of_images(folded, constants, numbers)
    for node in folded.graph.nodes:
        if node in known or not node.op.startswith("call"):
            continue
        if node in counted:
            known[node] = BATCHES
        elif node.all_input_nodes and known.keys() >= set(node.all_input_nodes):
            values = tuple(_applied(node, layers, known, i) for i in range(len(BATCHES)))
            if node in numbers and None not in values:
                known[node] = values
            elif (repeated := _repeated(*values)) is not None:
                found[node] = repeated
                known[node] = values
    return found


def _applied(
    node: fx.Node, layers: Mapping[str, nn.Module], known: Mapping[fx.Node, Any], place: int
) -> Any:
    """Return what a node gives of known values, None where it cannot take them."""
    args, kwargs = (
        fx.node.map_arg(told, lambda n: known[n][place]) for told in (node.args, node.kwargs)
    )
    target = layers[str(node.target)] if node.op == "call_module" else node.target
    try:
        return apply(target, args, kwargs)
    except Exception:  # whatever an operator raises: its planner says what it thinks of it
        return None


def _repeated(two: Any, three: Any) -> Repeated | None:
    """Return the value of one image where each of two, and of three, has the same."""
    if not all(isinstance(v, Tensor) and v.is_floating_point() and v.ndim for v in (two, three)):
        return None
    if two.ndim != three.ndim:
        return None
    axes = [i for i in range(two.ndim) if two.shape[i] != three.shape[i]]
    if len(axes) != 1 or (two.shape[axes[0]], three.shape[axes[0]]) != BATCHES:
        return None
    (axis,) = axes
    one = two.narrow(axis, 0, 1)
    apart = max(float((many - one).abs().max()) if many.numel() else 0.0 for many in (two, three))
    most = float(one.abs().max()) if one.numel() else 0.0
    return Repeated(one.clone(), axis) if apart <= TOLERANCE * most else None
