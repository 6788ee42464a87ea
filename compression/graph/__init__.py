"""A model's traced graph: what it computes, nothing in place, batch norms folded."""

from compression.graph.folding import (
    ChannelScale,
    fold_batch_norm,
    fold_row_norms,
    norms_as_convolutions,
    row_norms,
)
from compression.graph.functional import arguments_of, bare_layer
from compression.graph.inplace import number_nodes, place_of
from compression.graph.tracing import trace

__all__ = [
    "ChannelScale",
    "arguments_of",
    "bare_layer",
    "fold_batch_norm",
    "fold_row_norms",
    "norms_as_convolutions",
    "number_nodes",
    "place_of",
    "row_norms",
    "trace",
]
