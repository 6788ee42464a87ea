"""Muon: the momentum of a matrix is made orthogonal before it is added to the weights."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
QUINTIC = (3.4445, -4.7750, 2.0315)
"""a x + b x^3 + c x^5 brings a singular value x of 0..1 towards 1, small ones fastest (Jordan 2024)."""
TURNS = 3
"""Times that it is applied: what is above 0.02 of a matrix's norm arrives at 0.7 to 1.2."""


class Muon(torch.optim.SGD):
    """SGD in whose groups with "blocks" a step is the momentum, made orthogonal per block.

    Such a group holds weights (outputs, ...) of so many blocks of outputs: a step is about UV^T of the
    singular value decomposition USV^T of each block's momentum (Nesterov's, by the group's "inertia"),
    seen as a matrix (outputs, the rest), times sqrt(max(1, rows / columns)), so that it changes the
    outputs of every shape alike. Its weight_decay is decoupled. Other groups are SGD's.
    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, dtype: torch.dtype, **options: Any
    ) -> None:
        """Take the groups and options of SGD; matrices are multiplied in `dtype`."""
        super().__init__(groups, lr=lr, **options)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step; the gradients of groups with "blocks" become what was added to their weights."""
        loss = None if closure is None else torch.enable_grad()(closure)()  # type: ignore[no-untyped-call]
        for group in self.param_groups:
            if "blocks" in group:
                self._turn(group)
        super().step()
        return loss

    def _turn(self, group: dict[str, Any]) -> None:
        """Put the orthogonal step of each weight in the place of its gradient."""
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is not None:
                state = self.state[weight]
                if "muon_buffer" not in state:
                    state["muon_buffer"] = torch.zeros_like(weight.grad)
                state["muon_buffer"].mul_(group["inertia"]).add_(weight.grad)
                ahead = weight.grad.add(state["muon_buffer"], alpha=group["inertia"])
                matrices = ahead.reshape(group["blocks"], len(weight) // group["blocks"], -1)
                alike[matrices.shape].append((weight.grad, matrices))
        for (_, rows, columns), pairs in alike.items():  # one product for all of a shape
            steps = orthogonal(torch.cat([m for _, m in pairs]).to(self.dtype))
            steps = steps * max(1, rows / columns) ** 0.5
            for (gradient, _), step in zip(pairs, steps.chunk(len(pairs)), strict=True):
                gradient.copy_(step.reshape(gradient.shape))  # in the layout of the weight


def orthogonal(matrices: Tensor) -> Tensor:
    """Return about UV^T of the singular value decomposition USV^T of each of (n, rows, columns).

    By products of matrices alone (Newton and Schulz); a matrix of zeros stays zeros.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    a, b, c = QUINTIC
    for _ in range(TURNS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def hidden_matrices(model: nn.Module) -> Mapping[nn.Parameter, int]:
    """Return the weights of layers whose momentum is made orthogonal, and each's number of blocks.

    They are what modules call a weight, of two dimensions or more, in the order of parameters() but
    for the first and the last: the first layer and the classifier. The blocks are a convolution's
    groups, and q, k and v of an attention. Left out are embeddings, and what is a vector in each block,
    as a depthwise convolution's filters are: there is nothing to make orthogonal.
    """
    tables = (nn.Embedding, nn.EmbeddingBag)
    rows = {p for m in model.modules() if isinstance(m, tables) for p in m.parameters()}
    found: dict[nn.Parameter, int] = {}
    for path, parameter in model.named_parameters():
        *place, name = path.split(".")
        if "parametrizations" in place:  # a weight that is computed at each call
            place, name = place[:-2], place[-1]
        blocks = _blocks(model.get_submodule(".".join(place)), name)
        wide = parameter.ndim > 1 and parameter.is_floating_point() and parameter.numel() > 0
        if "weight" not in name or parameter in rows or not wide:
            continue
        if min(len(parameter) // blocks, parameter[0].numel()) > 1:
            found[parameter] = blocks
    return dict([*found.items()][1:-1])


def _blocks(layer: nn.Module, name: str) -> int:
    """Return how many matrices, one below the other, a layer's weight holds."""
    if isinstance(layer, CONVOLUTIONS):
        return layer.groups
    return 3 if isinstance(layer, nn.MultiheadAttention) and name == "in_proj_weight" else 1
