"""Do the integer kernels give the reference executor's codes?"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from compression.integer.kernels import unsigned
from compression.integer.native import NativeModel
from compression.integer.onednn import IntegerModel
from compression.integer.triton import TritonModel
from compression.quantization import StaticQuantizedModel

Find = Callable[[fx.Node, list[Tensor]], Tensor | None]
"""A node and the reference's inputs of it -> the kernels' codes of its output, where it has any."""


class _Compared(fx.Interpreter):
    """Runs the reference, and compares each layer's codes with those that `find` gives."""

    def __init__(self, reference: StaticQuantizedModel, find: Find) -> None:
        super().__init__(reference.network)
        self.find = find
        self.differences: dict[str, tuple[int, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        wanted = super().run_node(n)
        if n.op == "call_module" and wanted.dtype == torch.int8:
            found = self.find(n, list(self.fetch_args_kwargs_from_env(n)[0]))
            if found is not None:
                codes = unsigned(wanted).short()
                difference = (codes - found.reshape(codes.shape).short()).abs()
                share = float(difference.gt(0).float().mean())
                self.differences[n.name] = int(difference.max()), share
        return wanted


@torch.inference_mode()
def code_differences(
    reference: StaticQuantizedModel,
    integer: IntegerModel | NativeModel | TritonModel,
    inputs: Tensor,
) -> dict[str, tuple[int, float]]:
    """Return each layer's largest difference of codes, and the share of codes that differ, by name.

    A layer of an IntegerModel gets the reference's own codes, so that a difference is the layer's
    alone; a NativeModel or TritonModel, lowered with `keep` for all of `inputs`, runs from end to end.
    A model on a GPU is compared with a reference on the CPU, whose products are exact.
    """
    find: Find
    if not isinstance(integer, IntegerModel):
        integer(inputs.to(getattr(integer, "device", inputs.device)))
        codes = integer.codes()

        def find(node: fx.Node, _: list[Tensor]) -> Tensor | None:
            return codes.get(node.name)  # what flattens has no memory of its own
    else:
        network = integer.network

        def find(node: fx.Node, args: list[Tensor]) -> Tensor | None:
            found: Tensor = network.get_submodule(str(node.target))(*map(_input, args))
            return found

    compared = _Compared(reference, find)
    compared.run(inputs)
    return compared.differences


def _input(codes: Tensor) -> Tensor:
    if codes.dtype != torch.int8:
        return codes
    order = torch.channels_last if codes.ndim == 4 else torch.contiguous_format
    return unsigned(codes).contiguous(memory_format=order)
