"""Batch norm's running statistics, estimated again: a pruned layer feeds it other numbers."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compression.errors import CompressionError
from compression.layers import check_model, copy_model
from compression.modes import evaluating


@torch.no_grad()
def recalibrate_batch_norm(model: nn.Module, batches: Tensor | Iterable[Tensor]) -> nn.Module:
    """Return a copy whose batch norms hold the mean and variance of `batches`, weights unchanged.

    `batches` is one batch of prepared training inputs (N, ...) or several of about one size: means
    and unbiased variances are averaged over them with equal weight. No label and no gradient is
    used. CompressionError for a model without running statistics and for no batches (Li et al.
    2020, EagleEye, arXiv:2007.02491, 3.3).
    """
    check_model(model)
    recalibrated = copy_model(model)
    norms: list[Any] = [
        m for m in recalibrated.modules() if isinstance(m, _BatchNorm) and m.track_running_stats
    ]
    if not norms:
        raise CompressionError("the model has no batch norm with running statistics to recalibrate")
    momenta = [norm.momentum for norm in norms]
    device = norms[0].running_mean.device
    count = 0
    with evaluating(recalibrated):  # dropout stays off
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average
            norm.train()
        for batch in [batches] if isinstance(batches, Tensor) else batches:
            if len(batch):
                recalibrated(batch.to(device))
                count += 1
    if not count:
        raise CompressionError("the recalibration set is empty: pass some training images' inputs")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return recalibrated
