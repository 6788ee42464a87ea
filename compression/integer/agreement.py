"""Do the integer kernels give the reference executor's codes?"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from compression.integer.codes import LARGEST, unsigned
from compression.integer.native import NativeModel
from compression.integer.onednn.model import IntegerModel
from compression.integer.shapes import is_move
from compression.integer.triton import TritonModel
from compression.quantization import StaticQuantizedModel

Find = Callable[[fx.Node, Any, Any], Tensor | None]
"""A node and the reference's arguments of it -> the kernels' codes of its output, where it has any."""


class _Compared(fx.Interpreter):
    """Runs the reference, and compares each node's codes with those that `find` gives."""

    def __init__(self, reference: StaticQuantizedModel, find: Find) -> None:
        super().__init__(reference.network)
        self.find = find
        self.differences: dict[str, tuple[int, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        wanted = super().run_node(n)
        if n.op != "output" and isinstance(wanted, Tensor) and wanted.dtype == torch.int8:
            found = self.find(n, *self.fetch_args_kwargs_from_env(n))
            if found is not None:
                self.differences[n.name] = _difference(unsigned(wanted), found)
        return wanted


def _difference(wanted: Tensor, found: Tensor) -> tuple[int, float]:
    """Return the largest difference, and the share of codes that differ: all where shapes do."""
    if wanted.numel() != found.numel():
        return LARGEST, 1.0
    if wanted.numel() == 0:
        return 0, 0.0
    difference = (wanted.short() - found.reshape(wanted.shape).short()).abs()
    return int(difference.max()), float(difference.gt(0).float().mean())


class _Alone(fx.Interpreter):
    """Runs single nodes of an IntegerModel."""

    def __call__(self, node: fx.Node, args: Any, kwargs: Any) -> Tensor | None:
        read = unsigned if is_move(self.module, node) else _channels_last
        args, kwargs = fx.node.map_aggregate(  # type: ignore[misc]
            (args, kwargs),
            lambda a: read(a) if isinstance(a, Tensor) and a.dtype == torch.int8 else a,
        )
        found: Tensor = getattr(self, node.op)(node.target, args, kwargs)
        return found


@torch.inference_mode()
def code_differences(
    reference: StaticQuantizedModel,
    integer: IntegerModel | NativeModel | TritonModel,
    inputs: Tensor,
) -> dict[str, tuple[int, float]]:
    """Return each node's largest difference of codes, and the share of codes that differ, by name.

    A node of an IntegerModel gets the reference's own codes, so that a difference is the node's
    alone; a NativeModel or TritonModel, lowered with `keep` for all of `inputs`, runs from end to end.
    A model on a GPU is compared with a reference on the CPU, whose products are exact. Codes of
    another shape differ all, by 255.
    """
    find: Find
    if isinstance(integer, IntegerModel):
        find = _Alone(integer.network)
    else:
        integer(inputs.to(getattr(integer, "device", inputs.device)))
        codes = integer.codes()

        def find(node: fx.Node, _: Any, __: Any) -> Tensor | None:
            return codes.get(node.name)  # what flattens has no memory of its own

    compared = _Compared(reference, find)
    compared.run(inputs)
    return compared.differences


def _channels_last(codes: Tensor) -> Tensor:
    order = torch.channels_last if codes.ndim == 4 else torch.contiguous_format
    return unsigned(codes).contiguous(memory_format=order)
