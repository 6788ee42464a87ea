"""Networks for sparse tensor cores, and how near a half-precision output must be."""

import torch
from torch import Tensor, nn

from compression.layers import copy_model
from compression.pruning import prune_n_of_m

# dtype: (largest difference over the largest output, reason)
TOLERANCES = {
    torch.float16: (2.0**-9, "11 bits a number, five layers; 2^-11 was seen"),
    torch.bfloat16: (2.0**-6, "8 bits a number, five layers; 2^-8 was seen"),
}
SPARSE = ("0", "1", "2", "6")


def pointwise_net(seed: int = 0) -> nn.Module:
    """1x1 convolutions with and without bias and stride, and two linear layers."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(64, 32, 1),
        nn.Conv2d(32, 64, 1, stride=2, bias=False),
        nn.Conv2d(64, 64, 1, stride=(1, 2), padding="valid"),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 32, bias=False),
        nn.Linear(32, 7),
    ).eval()


def sparse_half(dtype: torch.dtype) -> nn.Module:
    """Return pointwise_net in `dtype`, its last layer dense."""
    model = pointwise_net()
    pruned = prune_n_of_m(model)
    pruned[7].load_state_dict(model[7].state_dict())
    return pruned.to(dtype)


def wide_images(count: int = 3) -> Tensor:
    return torch.randn(count, 64, 9, 6, generator=torch.Generator().manual_seed(0))


def assert_close(found: Tensor, model: nn.Module, x: Tensor, dtype: torch.dtype) -> None:
    """Compare with the dense network of the same weights in float64."""
    wanted = copy_model(model).cpu().double()(x.cpu().double())
    error = (found.cpu().double() - wanted).abs().max() / wanted.abs().max()
    assert error <= TOLERANCES[dtype][0]
