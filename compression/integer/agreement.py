"""Do the integer kernels give the reference executor's codes?"""

from typing import Any

import torch
from torch import Tensor, fx

from compression.integer.kernels import unsigned
from compression.integer.onednn import IntegerModel
from compression.quantization import StaticQuantizedModel


class _Both(fx.Interpreter):
    """Runs the reference, and each integer layer on the reference's own codes."""

    def __init__(self, reference: StaticQuantizedModel, integer: IntegerModel) -> None:
        super().__init__(reference.network)
        self.integer = integer.network
        self.differences: dict[str, tuple[int, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        wanted = super().run_node(n)
        if n.op == "call_module" and wanted.dtype == torch.int8:
            args = [_input(a) for a in self.fetch_args_kwargs_from_env(n)[0]]
            found = self.integer.get_submodule(str(n.target))(*args)
            difference = (unsigned(wanted).short() - found.short()).abs()
            self.differences[n.name] = int(difference.max()), float(difference.gt(0).float().mean())
        return wanted


@torch.inference_mode()
def code_differences(
    reference: StaticQuantizedModel, integer: IntegerModel, inputs: Tensor
) -> dict[str, tuple[int, float]]:
    """Return each layer's largest difference of codes, and the share of codes that differ, by name.

    Every layer gets the reference's own codes, so that a difference is the layer's alone.
    """
    both = _Both(reference, integer)
    both.run(inputs)
    return both.differences


def _input(codes: Tensor) -> Tensor:
    if codes.dtype != torch.int8:
        return codes
    order = torch.channels_last if codes.ndim == 4 else torch.contiguous_format
    return unsigned(codes).contiguous(memory_format=order)
