"""The method of multipliers: weights that train under a pull towards their compressed form."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Compress = Callable[[Sequence[Tensor]], list[Tensor]]
"""Values of each weight -> the nearest compressed ones, in the same shapes."""


class Multipliers:
    """What couples weights w to their compressed form theta.

    Training minimizes the loss + mu/2 |w - theta - lambda/mu|^2 (the L step: `penalty`). `advance` is
    what stands between two of them: theta = compress(w - lambda/mu), lambda -= mu (w - theta), and mu
    grows. A weight that is frozen cannot follow: its lambda stays 0.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        compress: Compress,
        *,
        mu: float,
        growth: float,
        most: float,
    ) -> None:
        """Start at the compressed form of the weights themselves; mu is never above `most`."""
        self.weights, self.compress = weights, compress
        self.mu, self.growth, self.most = min(mu, most), growth, most
        held = self._weights()
        self.theta = compress(held)
        self.lambdas = [torch.zeros_like(w) for w in held]
        self.targets = self.theta

    def penalty(self) -> Tensor:
        """Return mu/2 |w - theta - lambda/mu|^2, a scalar that gradients flow through."""
        parts = [
            (weight.to(target.dtype) - target).square().sum()
            for weight, target in zip(self.weights, self.targets, strict=True)
        ]
        return self.mu / 2 * torch.stack(parts).sum()

    @torch.no_grad()
    def advance(self) -> None:
        """Compress, update the multipliers, and let mu grow."""
        held = self._weights()
        self.theta = self.compress(
            [w - m / self.mu for w, m in zip(held, self.lambdas, strict=True)]
        )
        for weight, w, theta, m in zip(self.weights, held, self.theta, self.lambdas, strict=True):
            if weight.requires_grad:
                m -= self.mu * (w - theta)
        self.mu = min(self.mu * self.growth, self.most)
        self.targets = [t + m / self.mu for t, m in zip(self.theta, self.lambdas, strict=True)]

    @torch.no_grad()
    def settle(self) -> None:
        """Make the weights their compressed form."""
        for weight, theta in zip(self.weights, self.theta, strict=True):
            weight.copy_(theta.to(weight.dtype) + 0.0)  # -0.0 would be one value more

    def _weights(self) -> list[Tensor]:
        """Return the weights in float32 or better, in which small multipliers are not lost."""
        return [w.detach().to(torch.promote_types(w.dtype, torch.float32)) for w in self.weights]
