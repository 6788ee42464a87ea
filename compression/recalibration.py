"""Batch norm's running statistics, estimated again: a pruned layer feeds it other numbers."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compression.batches import run_batches
from compression.errors import CompressionError
from compression.layers import check_model, copy_model, record_left_out
from compression.modes import evaluating
from compression.training import Labelled


@torch.no_grad()
def recalibrate_batch_norm(
    model: nn.Module, batches: Tensor | Iterable[Any] | Labelled
) -> nn.Module:
    """Return a copy whose batch norms hold the mean and variance of `batches`, weights unchanged.

    `batches` is one batch of prepared training inputs (N, ...), or several of about one size, alone or
    in pairs (inputs, labels), or a Dataset. Means and unbiased variances are averaged over them
    with equal weight, in float32 or better; no label and no gradient is used. A norm that no batch
    reaches keeps its statistics, and left_out lists it. CompressionError for a model without
    running statistics, for no batches, and for a batch that the network cannot take. Li et al.
    2020, EagleEye, arXiv:2007.02491, 3.3.

    >>> model = nn.Sequential(nn.BatchNorm1d(1))
    >>> again = recalibrate_batch_norm(model, torch.tensor([[1.0], [3.0]]))
    >>> float(again[0].running_mean), float(again[0].running_var)
    (2.0, 2.0)
    """
    check_model(model)
    recalibrated = copy_model(model)
    norms: dict[str, Any] = {
        name: m
        for name, m in recalibrated.named_modules()
        if isinstance(m, _BatchNorm) and m.running_mean is not None
    }
    if not norms:
        raise CompressionError("the model has no batch norm with running statistics to recalibrate")
    before = [_Before(norm) for norm in norms.values()]
    with evaluating(recalibrated):  # dropout stays off
        for norm in norms.values():
            _average(norm)
        run_batches(recalibrated, batches, "recalibration")
    unseen = {}
    for (name, norm), old in zip(norms.items(), before, strict=True):
        if not old.renew(norm, name):
            unseen[name] = "no batch reached it: its statistics are the old ones"
    record_left_out(recalibrated, unseen)
    return recalibrated


class _Before:
    """What a norm held before it was made to average."""

    def __init__(self, norm: Any) -> None:
        self.momentum, self.track = norm.momentum, norm.track_running_stats
        self.buffers = {name: buffer.clone() for name, buffer in norm.named_buffers()}
        self.dtypes = {n: t.dtype for n, t in [*norm.named_parameters(), *norm.named_buffers()]}

    def renew(self, norm: Any, name: str) -> bool:
        """Make the norm what it was but for its statistics; tell whether it has seen a batch."""
        norm.momentum, norm.track_running_stats = self.momentum, self.track
        seen = bool(norm.num_batches_tracked)
        for tensor_name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
            tensor.data = tensor.data.to(self.dtypes[tensor_name])
        for buffer_name, buffer in norm.named_buffers():
            if not seen:
                buffer.copy_(self.buffers[buffer_name])
            elif not torch.isfinite(buffer).all():
                raise CompressionError(
                    f"{name}.{buffer_name}: found statistics beyond {buffer.dtype}; are the inputs "
                    "finite and prepared as in training?"
                )
        return seen


def _average(norm: Any) -> None:
    """Let a norm keep the cumulative average of what it sees, in float32 or better."""
    if norm.running_mean.itemsize < 4:
        norm.float()
    norm.track_running_stats = True
    norm.reset_running_stats()
    norm.momentum = None
    norm.train()
