"""Patches times filters are a layer's outputs, of every layer and of windows that are sampled."""

import pytest
import torch
from torch import Tensor, nn

from compression.layers import filters
from compression.quantization.patches import patches

TOLERANCE = 1e-12  # float64, in another order
LAYERS = {
    "linear": (nn.Linear(5, 7), (3, 4, 5)),
    "signals": (nn.Conv1d(4, 5, 4, padding="valid", stride=2), (3, 4, 17)),
    "same": (nn.Conv2d(4, 5, 3, padding="same", dilation=2), (2, 4, 9, 7)),
    "one image": (nn.Conv2d(4, 5, 3), (4, 9, 7)),
    "groups": (nn.Conv2d(6, 9, 3, 2, 1, 2, groups=3), (4, 6, 13, 11)),
    "depthwise": (nn.Conv2d(6, 6, (5, 1), padding=(2, 0), groups=6), (2, 6, 8, 9)),
    "replicated": (
        nn.Conv3d(2, 3, (1, 2, 3), padding=1, padding_mode="replicate"),
        (2, 2, 5, 6, 7),
    ),
    "reflected": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 5, 6)),
    "transposed signals": (nn.ConvTranspose1d(4, 6, 5, 3, 2, dilation=2), (2, 4, 9)),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, 2, 1, 1, groups=2), (3, 6, 5, 6)),
    "cropped": (nn.ConvTranspose2d(4, 4, 2, padding=3), (2, 4, 9, 9)),
    "apart": (nn.ConvTranspose2d(4, 4, 1, stride=2), (2, 4, 5, 5)),
    "transposed clips": (nn.ConvTranspose3d(2, 3, 2, 2), (2, 2, 3, 4, 5)),
}


def as_rows(layer: nn.Module, outputs: Tensor) -> Tensor:
    """Return (windows, channels)."""
    rank = len(getattr(layer, "kernel_size", ()))
    last = outputs if isinstance(layer, nn.Linear) else outputs.movedim(-rank - 1, -1)
    return last.reshape(-1, last.shape[-1])


def products(layer: nn.Module, inputs: Tensor, most: int) -> Tensor:
    found = patches(layer, inputs, most)
    weight = filters(layer.weight, layer)  # type: ignore[arg-type]
    return (found @ weight.reshape(len(found), -1, found.shape[2]).mT).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_patches_times_filters_are_the_outputs(name: str) -> None:
    layer, shape = LAYERS[name][0].double(), LAYERS[name][1]
    inputs = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = as_rows(layer, layer(inputs)) - layer.bias
    assert (products(layer, inputs, 10**6) - wanted).abs().max() < TOLERANCE
    few = products(layer, inputs, 10)
    step = -(-len(wanted) // 10) | 1
    assert len(few) <= 10
    assert (few - wanted[::step]).abs().max() < TOLERANCE
