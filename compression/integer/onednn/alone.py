"""Each layer of the oneDNN executor alone, on the reference executor's codes."""

from typing import Any

import torch
from torch import Tensor, fx

from compression.integer.codes import unsigned
from compression.integer.shapes import is_move


class LayersAlone(fx.Interpreter):
    """Runs single nodes of a lowered network, given the reference's arguments of each."""

    def __call__(self, node: fx.Node, args: Any, kwargs: Any) -> Tensor | None:
        """Return the codes of the node's output."""
        read = unsigned if is_move(self.module, node) else _channels_last
        args, kwargs = fx.node.map_aggregate(  # type: ignore[misc]
            (args, kwargs),
            lambda a: read(a) if isinstance(a, Tensor) and a.dtype == torch.int8 else a,
        )
        codes: Tensor = getattr(self, node.op)(node.target, args, kwargs)
        return codes


def _channels_last(codes: Tensor) -> Tensor:
    order = torch.channels_last if codes.ndim == 4 else torch.contiguous_format
    return unsigned(codes).contiguous(memory_format=order)
