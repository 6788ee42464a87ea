"""Following a forward for images of one size: what it asks of shapes are numbers to branch on."""

import operator
from types import CodeType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from compression.graph.tracers import Proxy, Tracer

_COUNTS = (2, 3)
"""Images of two batches: a size that differs between them is their number, or made of it."""


class _SizedProxy(Proxy):
    """Tells sizes, dtype and device as they are; a size made of the number of images stays a node."""

    tracer: "SizedTracer"

    @property
    def shape(self) -> tuple[Any, ...]:
        """The sizes of a tensor."""
        known = self.tracer.known(self.node)
        if known is None:  # of a tuple, or a number
            return fx.proxy.Attribute(self, "shape")  # type: ignore[return-value]
        pairs = enumerate(zip(*(value.shape for value in known), strict=True))
        return tuple(a if a == b else self._asked(axis) for axis, (a, b) in pairs)

    def size(self, dim: int | None = None) -> Any:
        """Return all sizes, or one."""
        sizes = self.shape
        return sizes if dim is None else sizes[dim]

    def reshape_as(self, other: fx.Proxy) -> Any:
        """Return this tensor in the shape of another."""
        return self.reshape(other.shape)

    view_as = reshape_as

    def dim(self) -> Any:
        """Return the number of axes."""
        return self.ndim

    @property
    def ndim(self) -> Any:
        """The number of axes."""
        return self._of("ndim")

    @property
    def dtype(self) -> Any:
        """The dtype of a tensor."""
        return self._of("dtype")

    @property
    def device(self) -> Any:
        """The device of a tensor."""
        return self._of("device")

    def __len__(self) -> int:
        """Return the parts of a tuple, or a size that the number of images does not change."""
        lengths = {len(v) for v in self.tracer.values[self.node] if hasattr(v, "__len__")}
        return lengths.pop() if len(lengths) == 1 else super().__len__()

    def _of(self, name: str) -> Any:
        known = self.tracer.known(self.node)
        return fx.proxy.Attribute(self, name) if known is None else getattr(known[0], name)

    def _asked(self, axis: int) -> fx.Proxy:
        return self.tracer.create_proxy("call_method", "size", (self, axis), {})


class SizedTracer(Tracer):
    """Follows a forward for images of `sizes`: knows each value's shape, and computes none."""

    def __init__(self, below: CodeType, sizes: tuple[int, ...], like: Tensor) -> None:
        """Follow nothing yet; images have the dtype and the device of `like`."""
        super().__init__(below)
        self.values: dict[fx.Node, tuple[Any, Any]] = {}
        self._computing = False
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        with self._fake:
            self._images = tuple(
                torch.empty(count, *sizes, dtype=like.dtype, device=like.device)
                for count in _COUNTS
            )

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return what a forward is given for a node's value."""
        return _SizedProxy(node, self)

    def known(self, node: fx.Node) -> tuple[Tensor, Tensor] | None:
        """Return the value of a node for two batches, without its numbers; None for no tensor."""
        first, second = self.values.get(node, (None, None))
        both = isinstance(first, Tensor) and isinstance(second, Tensor)
        return (first, second) if both else None

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Make a node, and find out the shape of its value; meta["sizes"] tells all but the first."""
        node = super().create_node(*args, **kwargs)
        if node.op != "output":
            self._computing = True
            try:
                with self._fake, torch.no_grad():
                    self.values[node] = (self._value(node, 0), self._value(node, 1))
            finally:
                self._computing = False
            known = self.known(node)
            if known is not None and known[0].shape[1:] == known[1].shape[1:]:
                node.meta["sizes"] = tuple(known[0].shape[1:])
        return node

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Follow a module, but within what is computed."""
        if self._computing:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return a module's tensor as a node, but within what is computed."""
        if self._computing:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def _value(self, node: fx.Node, batch: int) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.values[n][batch])
        match node.op:
            case "placeholder":
                return self._images[batch]
            case "get_attr":
                return operator.attrgetter(str(node.target))(self.root)
            case "call_module":
                return self.root.get_submodule(str(node.target))(*args, **kwargs)
            case "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]
