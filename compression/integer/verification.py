"""Does an executor predict what the reference executor does? It is tried on the example."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.affine import INT8_MAX, INT8_MIN
from compression.errors import CompressionError
from compression.integer.agreement import code_differences
from compression.integer.executors import Executor
from compression.integer.shapes import is_move
from compression.nested import named_leaves, structure_of, tensors_in
from compression.quantization import StaticQuantizedModel
from compression.quantization import modules as q
from compression.quantization.ends import returned

IMAGES = 8
"""Images of the example whose outputs are compared: the first half of them, and the last."""


class Verification:
    """The reference's outputs on a few images of an example, to compare executors with."""

    @torch.no_grad()
    def __init__(self, model: StaticQuantizedModel, example: Tensor) -> None:
        """Predict; CompressionError for an example that the network does not take."""
        if not isinstance(example, Tensor) or example.ndim < 1 or len(example) == 0:
            what = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
            raise CompressionError(f"the example must hold at least one image, found {what}")
        half, count = IMAGES // 2, len(example)
        self.rows = [i for i in range(count) if i < half or i >= count - half]
        self.model = model
        if example.device.type != "cpu":  # only there are its products exact
            self.model = copy.deepcopy(model).cpu()
        try:
            self.example = _informative(model, example)
            self.images = self.example[self.rows].cpu()
            wanted = self.model(self.images)
            self.structure = structure_of(wanted)
            self.wanted = list(named_leaves(wanted, Tensor))
        except Exception as error:  # whatever a network raises for inputs that are not its own
            raise CompressionError(
                f"the network cannot take the example {tuple(example.shape)}: {first_line(error)}"
            ) from error

    @torch.no_grad()
    def disagreement(self, lowered: nn.Module, executor: Executor) -> str | None:
        """Say how `lowered` differs from the reference, None where it agrees."""
        try:
            outputs = lowered(self.example)
            found = [tensor.cpu() for tensor in tensors_in(outputs)]
        except Exception as error:  # whatever an executor raises
            place = self._place(lowered, executor)
            return f"fails at {place or 'its output'} ({first_line(error)})"
        if structure_of(outputs) != self.structure:
            return f"returns another structure ({type(outputs).__name__})"
        for (path, wanted), tensor in zip(self.wanted, found, strict=True):
            shape = (len(self.example), *wanted.shape[1:])
            if tensor.shape != shape:
                return f"returns the shape {tuple(tensor.shape)}{_at(path)}, expected {shape}"
        offs = [
            (_error(tensor[self.rows], wanted), allowed, path)
            for (path, wanted), allowed, tensor in zip(
                self.wanted, self._allowed(executor), found, strict=True
            )
        ]
        off, allowed, path = max(offs, key=lambda row: row[0] - row[1])
        looked_at = executor.layer_by_layer or off > allowed
        place = self._place(lowered, executor) if looked_at else None
        if off <= allowed and place is None:
            return None
        return (
            f"disagrees with the reference executor at {place or f'its output{_at(path)}'} (error of "
            f"the outputs {off:.3g}, at most {allowed:.3g})"
        )

    def _allowed(self, executor: Executor) -> Iterator[float]:
        """Yield the largest error of each output: a share of its norm, and a step of its codes."""
        bound, _ = executor.tolerance
        network = self.model.network
        for (_, wanted), (_, node) in zip(self.wanted, returned(network.graph), strict=True):
            step = _output_step(network, node) * wanted.numel() ** 0.5
            yield bound * float(wanted.double().norm()) + step if bound else 0.0

    def _place(self, lowered: nn.Module, executor: Executor) -> str | None:
        """Name the first layer whose codes differ; None where none does, or none can be looked at."""
        bound, _ = executor.tolerance
        try:
            integer: Any = lowered
            if executor.keep is not None:
                integer = executor.keep(self.model, self.images)
            differences = code_differences(self.model, integer, self.images)
        except Exception:  # what fails as a whole may fail here too, and an engine tells no codes
            return None
        return _first_beyond(self.model.network, differences, 0 if bound == 0 else 1)


def _informative(model: StaticQuantizedModel, example: Tensor) -> Tensor:
    """Return the example, or random codes where it is constant or not finite: that shows nothing."""
    if example.isfinite().all() and not (example == example.flatten()[0]).all():
        return example
    inputs = next(m for m in model.modules() if isinstance(m, q.Quantize))
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(INT8_MIN, INT8_MAX + 1, example.shape, generator=generator)
    real = (codes - inputs.output_zero_point.cpu()) * inputs.output_scale.cpu()
    return real.to(example.device)


def _at(path: str) -> str:
    return f" at {path!r}" if path else ""


def _error(found: Tensor, wanted: Tensor) -> float:
    if found.equal(wanted):
        return 0.0
    error = (found.double() - wanted.double()).norm()
    return float(error.nan_to_num(nan=torch.inf))


def _output_step(network: fx.GraphModule, node: fx.Node) -> float:
    """Return how far a code of what an output is made of may move a number of it."""
    while is_move(network, node):
        node = node.all_input_nodes[0]
    layer = network.get_submodule(str(node.target))
    if isinstance(layer, q.REAL):  # sums, and means of neighbours
        values: Any = node.args[: 1 if isinstance(layer, q.RealInterpolation) else 2]
        return sum((_output_step(network, value) for value in values), 0.0)
    if isinstance(layer, q.QuantizedLayer):
        largest = float(layer.codes.abs().amax() * layer.weight_scale.amax())
        return float(layer.input_scale) * largest
    return float(layer.scale) if isinstance(layer, q.Dequantize) else 0.0


def _first_beyond(
    network: fx.GraphModule, differences: Mapping[str, tuple[int, float]], most: int
) -> str | None:
    for node in network.graph.nodes:
        largest, share = differences.get(node.name, (0, 0.0))
        if largest > most:
            name = node.target if node.op == "call_module" else node.name
            return f"{name}, of whose codes {share:.1%} differ by up to {largest}"
    return None


def first_line(error: Exception) -> str:
    """Return what an error says in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
