"""A drawn network as Python source, with its inputs."""

import linecache
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

HEADER = """import torch
from torch import nn
from torch.nn import functional as F
"""
FILE = "<drawn network>"
LAYOUTS = ("contiguous", "channels last", "strided")


@dataclass(frozen=True)
class Program:
    """The source of a network, which defines `network()`, and its inputs' shapes without a batch.

    `features` names what the network does that some function may refuse (features.py).
    """

    source: str
    shapes: tuple[tuple[int, ...], ...]
    features: frozenset[str] = field(default=frozenset())
    layout: str = "contiguous"

    def __repr__(self) -> str:
        """Print the program: it can be pasted."""
        inputs = ", ".join(f"numbers(4, {', '.join(map(str, s))})" for s in self.shapes)
        about = f"# inputs: {inputs}, {self.layout}\n# features: {', '.join(sorted(self.features))}"
        return f"\n{self.source}\n{about}\n"

    def build(self) -> nn.Module:
        """Return the network, fresh and in eval mode: the same weights at each call."""
        # For the traceback and for what looks up a line of forward: the latest program's text.
        linecache.cache[FILE] = (len(self.source), None, self.source.splitlines(True), FILE)
        names: dict[str, Any] = {"__name__": "drawn"}
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            exec(compile(self.source, FILE, "exec"), names)
            net: nn.Module = names["network"]()
        return net

    def runs(self, batch: int = 4) -> bool:
        """Tell whether the float network itself takes its inputs, without a warning.

        A view of none has no -1, and no deviation.
        """
        try:
            with torch.no_grad():
                self.build()(*self.inputs(batch))
        except (RuntimeError, ValueError, UserWarning):
            return False
        return True

    def inputs(self, batch: int = 4, *, seed: int = 1) -> tuple[Tensor, ...]:
        """Return inputs of standard normal numbers, in the layout that was drawn."""
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(batch, *shape, generator=generator) for shape in self.shapes]
        return tuple(laid_out(x, self.layout) for x in drawn)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """Return the same numbers in another order of memory."""
    if layout == "channels last" and x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        wide = torch.full((*x.shape[:-1], 2 * x.shape[-1] + 1), torch.nan)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    return x
