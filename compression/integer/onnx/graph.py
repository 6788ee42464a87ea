"""An ONNX graph in the making, and how numbers are moved in one."""

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np
import torch
from torch import Tensor

OPSET = 18
"""ONNX's operators of this version: the first that torch's exporter writes."""


class Graph:
    """The nodes and constants written so far."""

    def __init__(self) -> None:
        """Write nothing yet."""
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Write a node of one output; return the output's name."""
        from onnx import helper

        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def named(self, real: str, path: str) -> str:
        """Write `real` once more, by its `path` among several outputs; return the name it has then.

        A name that the graph has already gets a line under it.
        """
        if not path:
            return real
        taken = {"input", *(n for node in self.nodes for n in node.output)}
        taken.update(constant.name for constant in self.constants)
        while path in taken:
            path = f"{path}_"
        self.node("Identity", [real])
        self.nodes[-1].output[0] = path
        return path

    def constant(self, array: Any) -> str:
        """Write a constant (a tensor or an array); return its name."""
        from onnx import numpy_helper

        array = array.cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def read_constants(self) -> list[Any]:
        """Return the constants that a node reads: an engine warns of others."""
        inner = (body.node for node in self.nodes for body in _held(node))
        read = {name for nodes in (self.nodes, *inner) for node in nodes for name in node.input}
        return [constant for constant in self.constants if constant.name in read]

    def insert(self, graph: Any, inputs: list[str]) -> str:
        """Write the nodes and constants of an onnx.GraphProto that reads `inputs`, under new names.

        Returns the name of its first output. Its nodes lose the traces of where they were made.
        """
        before = f"float_{len(self.nodes)}."
        names = {end.name: name for end, name in zip(graph.input, inputs, strict=True)} | {"": ""}
        for body in bodies(graph):
            for node in body.node:
                node.input[:] = [names.get(name, before + name) for name in node.input]
                node.output[:] = [names.get(name, before + name) for name in node.output]
            for part in (*body.node, *body.input, *body.output, *body.initializer):
                part.name = names.get(part.name, before + part.name)
                part.ClearField("metadata_props")
                part.ClearField("doc_string")
            del body.value_info[:]
        self.nodes.extend(graph.node)
        self.constants.extend(graph.initializer)
        return str(graph.output[0].name)

    def whole(self, *numbers: int) -> str:
        """Write whole numbers (int64), as shapes and axes are given."""
        return self.constant(np.array(numbers, np.int64))

    def reshape(self, real: str, shape: list[int]) -> str:
        """Return `real` in the shape of one image: 0 keeps the number of images."""
        return self.node("Reshape", [real, self.whole(0, *shape[1:])])

    def move(self, real: str, places: Tensor, before: list[int], after: list[int]) -> str:
        """Return the numbers of `real` that `places` counts, of one image, in their new shape."""
        count = torch.Size(before).numel()
        numbers = torch.arange(count).view(before)
        if places.flatten().equal(numbers.flatten()):
            return self.reshape(real, after)
        for order in permutations(range(1, len(before))):
            if numbers.permute(0, *order).equal(places.view(after)):
                return self.node("Transpose", [real], perm=[0, *order])
        cut = _slices(places, numbers)
        if cut:
            axes = range(1, len(before))
            ends = [[f(s) for s in cut[1:]] for f in (_start, _stop, _step)]
            names = [self.whole(*v) for v in (*ends[:2], axes, ends[2])]
            sliced = self.node("Slice", [real, *names])
            return sliced if len(after) == len(before) else self.reshape(sliced, after)
        flat = self.reshape(real, [1, count])
        taken = self.node("Gather", [flat, self.constant(places.flatten())], axis=1)
        return self.reshape(taken, after)


def bodies(graph: Any) -> Iterator[Any]:
    """Yield a graph and those that its nodes hold, as If and Loop do."""
    yield graph
    for node in graph.node:
        yield from _held(node)


def _held(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        own = [attribute.g] if attribute.HasField("g") else []
        for body in (*own, *attribute.graphs):
            yield from bodies(body)


def _start(cut: slice) -> int:
    return int(cut.start)


def _stop(cut: slice) -> int:
    return int(cut.stop)


def _step(cut: slice) -> int:
    return int(cut.step)


def _slices(places: Tensor, numbers: Tensor) -> list[slice] | None:
    """Return the slices of `numbers` that are `places`, one for each dimension; None for none."""
    cuts, left = [], places.flatten()
    for stride, size in zip(numbers.stride(), numbers.shape, strict=True):
        taken = (left // stride % size).unique()
        steps = taken.diff().unique().tolist()
        if len(taken) == 0 or len(steps) > 1:
            return None
        cuts.append(slice(int(taken[0]), int(taken[-1]) + 1, steps[0] if steps else 1))
    return cuts if numbers[tuple(cuts)].flatten().equal(left) else None
