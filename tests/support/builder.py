"""Writes a network line by line, running each line as it is written to know the shapes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.utils.prune
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.program import HEADER

Pick = Callable[[Sequence[Any]], Any]
"""Chooses one of several, the simplest first."""
MOST_NUMBERS = 400
"""Of a value per input of the batch: the networks stay small."""
BATCH = 2


class Value(NamedTuple):
    """A name of forward, the tensor that it held in the drawing's run, and the line that made it."""

    name: str
    tensor: Tensor
    line: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape[1:])

    @property
    def ndim(self) -> int:
        return self.tensor.ndim


class Builder:
    """A network under way: `layers` and `setup` of __init__ and network(), `lines` of forward."""

    def __init__(self, pick: Pick) -> None:
        self.pick = pick
        self.classes: dict[str, str] = {}
        self.layers: dict[str, str] = {}
        self.setup: list[str] = []
        self.lines: list[str] = []
        self.values: list[Value] = []
        self.arguments: list[str] = []
        self.shapes: list[tuple[int, ...]] = []
        self.features: set[str] = set()
        self.overwritten: dict[int, int] = {}  # memory -> the line that wrote into it
        self.net = nn.Module()
        self.names: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "self": self.net}

    def argument(self, shape: tuple[int, ...]) -> Value:
        """Add an input (N, *shape) to forward."""
        name = f"x{len(self.shapes)}"
        self.arguments.append(name)
        self.shapes.append(shape)
        return self._bind(name, torch.randn(BATCH, *shape))

    def layer(self, kind: str, constructor: str) -> str:
        """Add a layer to __init__; return how forward names it."""
        name = f"{kind}{len(self.layers)}"
        value = eval(constructor, self.names)
        setattr(self.net, name, value)
        self.layers[name] = constructor
        return f"self.{name}"

    def drop_layer(self, called: str) -> None:
        """Take back a layer that no line of forward can call."""
        name = called.removeprefix("self.")
        self.layers.pop(name)
        delattr(self.net, name)
        self.setup = [line for line in self.setup if f"net.{name}." not in line]

    @torch.no_grad()
    def add(self, expression: str, *reads: Value, overwrites: Value | None = None) -> Value | None:
        """Add the line `name = expression`; None where torch refuses or warns, or it is too large."""
        name = f"v{len(self.lines)}"
        line = f"{name} = {expression}"
        held = overwrites.tensor.clone() if overwrites is not None else None
        try:
            exec(line, self.names)
            result = self.names[name]
            fits = isinstance(result, Tensor) and self._fits(result)
        except (RuntimeError, ValueError, IndexError, TypeError, UserWarning):
            fits = False
        if not fits:
            if overwrites is not None:
                overwrites.tensor.copy_(held)
            return None
        self._look_at(reads)
        self.lines.append(line)
        if overwrites is not None:
            self.overwritten[memory(overwrites.tensor)] = len(self.lines)
            self.features.add("in-place")
            if any(memory(self.names[a]) == memory(overwrites.tensor) for a in self.arguments):
                self.features.add("overwritten input")
        return self._bind(name, self.names[name])

    def line(self, text: str, *reads: Value) -> None:
        """Add a line that makes no value, as it is."""
        self._look_at(reads)
        self.lines.append(text)

    def value(self, *ndims: int) -> Value | None:
        """Choose a value of one of `ndims` dimensions, often the latest."""
        fit = [v for v in reversed(self.values) if not ndims or v.ndim in ndims]
        if not fit:
            return None
        chosen: Value = fit[0] if self.pick((True, True, False)) else self.pick(fit)
        return chosen

    def fresh(self, name: str) -> str:
        """Return an unused name of forward."""
        return f"{name}{len(self.lines)}"

    def source(self, returned: str) -> str:
        """Return the whole program."""
        layers = [f"self.{name} = {made}" for name, made in self.layers.items()]
        signature = ", ".join(["self", *self.arguments])
        body = [
            *self.classes.values(),
            "class Drawn(nn.Module):",
            "    def __init__(self):",
            *[f"        {line}" for line in ["super().__init__()", *layers]],
            "",
            f"    def forward({signature}):",
            *[f"        {line}" for line in [*self.lines, f"return {returned}"]],
            "",
            "def network():",
            # torch's manual_seed keeps a traceback a call for GPUs to come: a tenth of all the time.
            "    torch.default_generator.manual_seed(0)",
            *[f"    {line}" for line in ["net = Drawn().eval()", *self.setup]],
            "    return net",
        ]
        used = "\n".join(body)
        extra = "import torch.nn.utils.prune\n" if "utils.prune" in used else ""
        return f"{HEADER}{extra}\n{used}"

    def _bind(self, name: str, tensor: Tensor) -> Value:
        value = Value(name, tensor, len(self.lines))
        self.names[name] = tensor
        self.values = [v for v in self.values if v.name != name] + [value]
        return value

    def _look_at(self, reads: Sequence[Value]) -> None:
        for read in reads:
            if read.line < self.overwritten.get(memory(read.tensor), 0):
                self.features.add("read after in-place")

    @staticmethod
    def _fits(result: Tensor) -> bool:
        small = 0 < result.numel() <= BATCH * MOST_NUMBERS and result.shape[:1] == (BATCH,)
        plain = result.ndim >= 2 and result.dtype == torch.float32
        # A window that lies in the border alone has the maximum -inf.
        return small and plain and bool(torch.isfinite(result).all())


def memory(tensor: Tensor) -> int:
    """Return what tensors of the same memory have in common."""
    return tensor.untyped_storage().data_ptr()
