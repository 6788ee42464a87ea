"""Batch norm over the images of all processes, so that a batch has one mean and one variance."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

from compression.training.ranks import Ranks


class Synchronized:
    """Lets the batch norms of a network see the whole batch while it trains.

    `weight` is what an image of this process counts for, below 1 where every process has the same
    images. Batch norms in eval mode, and classes with a forward of their own, stay as they are.
    """

    def __init__(self, ranks: Ranks) -> None:
        """Count every image once."""
        self.ranks, self.weight = ranks, 1.0

    @contextmanager
    def within(self, model: nn.Module) -> Iterator[None]:
        """Replace the forward of each batch norm; afterwards all are as they were."""
        norms: list[Any] = [] if self.ranks.alone else [m for m in model.modules() if _is_plain(m)]
        for norm in norms:
            norm.forward = partial(self.forward, norm)
        try:
            yield
        finally:
            for norm in norms:
                del norm.forward

    def forward(self, norm: Any, x: Tensor) -> Tensor:
        """Return what `norm` gives for `x` (N, C, ...), this process's part of the batch."""
        if not norm.training:
            return _BatchNorm.forward(norm, x)
        norm._check_input_dim(x)
        rate = norm.momentum or 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:  # the average of all batches
                rate = 1.0 / float(norm.num_batches_tracked)
        if x.is_cuda and self.weight == 1:
            return SyncBatchNorm.apply(  # type: ignore[no-untyped-call]
                x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps, rate,
                dist.group.WORLD, self.ranks.world,
            )  # fmt: skip
        return self._normalized(norm, x, rate)

    def _normalized(self, norm: Any, x: Tensor, rate: float) -> Tensor:
        """Normalize by torch's own operators, on any device (Chan et al. 1979 combine variances)."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        var, mean = torch.var_mean(wide, [0, *range(2, x.ndim)], correction=0)
        count = torch.full_like(mean[:1], x.numel() / x.shape[1] * self.weight)
        row = torch.cat([mean, var, count])
        rows = [
            row if i == self.ranks.rank else torch.zeros_like(row) for i in range(self.ranks.world)
        ]
        means, variances, counts = _Sum.apply(torch.stack(rows)).split([len(mean), len(mean), 1], 1)
        total = counts.detach().sum()
        mean = (means * counts).sum(0) / total
        var = ((variances + (means - mean).square()) * counts).sum(0) / total
        if total <= 1.5:
            raise ValueError(
                "Expected more than 1 value per channel when training, got input size "
                f"{tuple(x.shape)}"
            )
        if norm.running_mean is not None:
            with torch.no_grad():
                norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), rate)
                unbiased = var * total / (total - 1)
                norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), rate)
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = (var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        result = (wide - mean.view(shape)) * scale.view(shape)
        if norm.bias is not None:
            result = result + norm.bias.view(shape)
        return result.to(x.dtype)


def _is_plain(module: nn.Module) -> bool:
    return (
        isinstance(module, _BatchNorm)
        and type(module).forward is _BatchNorm.forward
        and "forward" not in vars(module)
    )


class _Sum(torch.autograd.Function):
    """The sum over the processes, whose gradient is the sum over the processes."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
