"""Do the integer kernels give the reference executor's codes?"""

from typing import Any

import torch
from torch import Tensor, fx

from compression.integer.kernels import unsigned
from compression.integer.native import NativeModel
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
            self.differences[n.name] = _difference(unsigned(wanted), found)
        return wanted


class _Codes(fx.Interpreter):
    """Runs the reference, and keeps each layer's codes (uint8, as kernels write them)."""

    def __init__(self, reference: StaticQuantizedModel) -> None:
        super().__init__(reference.network)
        self.codes: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_module" and value.dtype == torch.int8:
            self.codes[n.name] = unsigned(value)
        return value


@torch.inference_mode()
def code_differences(
    reference: StaticQuantizedModel, integer: IntegerModel | NativeModel, inputs: Tensor
) -> dict[str, tuple[int, float]]:
    """Return each layer's largest difference of codes, and the share of codes that differ, by name.

    A layer of an IntegerModel gets the reference's own codes, so that a difference is the layer's
    alone; a NativeModel, lowered with `keep` for all of `inputs`, runs from end to end.
    """
    if isinstance(integer, NativeModel):
        wanted = _Codes(reference)
        wanted.run(inputs)
        integer(inputs)
        found = integer.codes()
        pairs = {
            name: (codes, found[name]) for name, codes in wanted.codes.items() if name in found
        }
        return {name: _difference(a, b.reshape(a.shape)) for name, (a, b) in pairs.items()}
    both = _Both(reference, integer)
    both.run(inputs)
    return both.differences


def _difference(wanted: Tensor, found: Tensor) -> tuple[int, float]:
    difference = (wanted.short() - found.short()).abs()
    return int(difference.max()), float(difference.gt(0).float().mean())


def _input(codes: Tensor) -> Tensor:
    if codes.dtype != torch.int8:
        return codes
    order = torch.channels_last if codes.ndim == 4 else torch.contiguous_format
    return unsigned(codes).contiguous(memory_format=order)
