"""Compress deep networks: pruning, quantization, distillation, and files that are really smaller.

A technique is a function: a model in, a new model out, the input untouched. What it cannot do right it
refuses with a CompressionError, or lists in `left_out(model)`.

>>> import torch
>>> from torch import nn
>>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
>>> small = quantize_static(prune_l1_unstructured(model, amount=0.5), torch.randn(32, 8))
>>> deploy(small, torch.randn(1, 8))(torch.randn(4, 8)).shape
torch.Size([4, 2])
"""

from compression.accounting import count_macs
from compression.architectures import Architecture
from compression.clustering import fine_tune_centroids, share_weights
from compression.distillation import (
    AttentionTransfer,
    Decoupled,
    Dist,
    Hinton,
    MeanSquared,
    Standardized,
    distill,
)
from compression.errors import CompressionError
from compression.explanation import explain
from compression.integer import deploy, export_onnx
from compression.layers import left_out
from compression.pruning import (
    fine_tune,
    prune_l1_global,
    prune_l1_unstructured,
    prune_ln_structured,
    prune_n_of_m,
    prune_random_unstructured,
    sparsity,
)
from compression.quantization import (
    cast,
    quantize_aware,
    quantize_dynamic,
    quantize_static,
    quantize_weights,
    round_vectors,
)
from compression.recalibration import recalibrate_batch_norm
from compression.removal import remove_channels, remove_channels_softly
from compression.schedules import (
    learn_pruned,
    learn_shared,
    prune_gradually,
    prune_iteratively,
)
from compression.semi_structured import lower_semi_structured
from compression.storage import contents, load, load_checkpoint, save
from compression.training import Recipe, Split, StreamedSplit, fit

__all__ = [
    "Architecture",
    "AttentionTransfer",
    "CompressionError",
    "Decoupled",
    "Dist",
    "Hinton",
    "MeanSquared",
    "Recipe",
    "Split",
    "Standardized",
    "StreamedSplit",
    "cast",
    "contents",
    "count_macs",
    "deploy",
    "distill",
    "explain",
    "export_onnx",
    "fine_tune",
    "fine_tune_centroids",
    "fit",
    "learn_pruned",
    "learn_shared",
    "left_out",
    "load",
    "load_checkpoint",
    "lower_semi_structured",
    "prune_gradually",
    "prune_iteratively",
    "prune_l1_global",
    "prune_l1_unstructured",
    "prune_ln_structured",
    "prune_n_of_m",
    "prune_random_unstructured",
    "quantize_aware",
    "quantize_dynamic",
    "quantize_static",
    "quantize_weights",
    "recalibrate_batch_norm",
    "remove_channels",
    "remove_channels_softly",
    "round_vectors",
    "save",
    "share_weights",
    "sparsity",
]
