"""Do an executor's kernels give the reference executor's codes?"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, fx

from compression.integer.codes import LARGEST, unsigned
from compression.quantization import StaticQuantizedModel

CodesOf = Callable[[fx.Node, Any, Any], Tensor | None]
"""A node and the reference's arguments of it -> the kernels' codes of its output, where it has any."""


class Comparable(Protocol):
    """A model whose codes can be looked at."""

    def codes_of(self, inputs: Tensor) -> CodesOf:
        """Return the function that tells the codes of each node for these inputs."""


def codes_by_name(codes: Mapping[str, Tensor]) -> CodesOf:
    """Return the function that looks a node's codes up by its name."""
    # What flattens has no memory of its own.
    return lambda node, _, __: codes.get(node.name)


class _Compared(fx.Interpreter):
    """Runs the reference, and compares each node's codes with those that `codes_of` tells."""

    def __init__(self, reference: StaticQuantizedModel, codes_of: CodesOf) -> None:
        super().__init__(reference.network)
        self.codes_of = codes_of
        self.differences: dict[str, tuple[int, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        wanted = super().run_node(n)
        if n.op != "output" and isinstance(wanted, Tensor) and wanted.dtype == torch.int8:
            codes = self.codes_of(n, *self.fetch_args_kwargs_from_env(n))
            if codes is not None:
                self.differences[n.name] = _difference(unsigned(wanted), codes)
        return wanted


def _difference(wanted: Tensor, codes: Tensor) -> tuple[int, float]:
    """Return the largest difference, and the share of codes that differ: all where shapes do."""
    if wanted.numel() != codes.numel():
        return LARGEST, 1.0
    if wanted.numel() == 0:
        return 0, 0.0
    difference = (wanted.short() - codes.reshape(wanted.shape).short()).abs()
    return int(difference.max()), float(difference.gt(0).float().mean())


@torch.inference_mode()
def code_differences(
    reference: StaticQuantizedModel, integer: Comparable, inputs: Tensor
) -> dict[str, tuple[int, float]]:
    """Return each node's largest difference of codes, and the share of codes that differ, by name.

    A node of an IntegerModel gets the reference's own codes, so that a difference is the node's
    alone; a NativeModel or TritonModel, lowered with `keep` for all of `inputs`, runs from end to end.
    A model on a GPU is compared with a reference on the CPU, whose products are exact. Codes of
    another shape differ all, by 255.
    """
    compared = _Compared(reference, integer.codes_of(inputs))
    compared.run(inputs)
    return compared.differences
