"""The batches of an epoch: their order, and what training does to their inputs."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.training.recipe import Recipe, seed_of
from compression.training.split import Split


def batches(
    train: Split, recipe: Recipe, epoch: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield an epoch's inputs (N, C, H, W), channels last, and labels (N,) on `device`.

    Everything is drawn on the device that holds the images: with images on `device` no batch waits
    for a copy.
    """
    # A generator of its own an epoch: an epoch taken up again after a kill sees the same batches.
    generator = torch.Generator(train.images.device).manual_seed(seed_of(recipe, epoch))
    order = torch.randperm(len(train), generator=generator, device=train.images.device)
    for index in order.split(recipe.batch_size):
        inputs = train.augmented(index, generator).to(device)
        if epoch < len(recipe.coarse_sizes):
            size = recipe.coarse_sizes[epoch]
            inputs = F.interpolate(inputs, size=size, mode="bilinear", antialias=True)
        if recipe.cutout:
            inputs = cut_out(inputs, recipe.cutout, generator)
        labels = train.labels[index.to(train.labels.device)].to(device)
        yield inputs.contiguous(memory_format=torch.channels_last), labels


def cut_out(inputs: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return inputs (N, C, H, W) with a square of `side` pixels of each set to 0, the mean.

    Its centre is drawn from the whole image, so that some of it may lie outside (DeVries and Taylor
    2017, arXiv:1708.04552).
    """
    count, _, *sizes = inputs.shape
    draws = torch.rand(2, count, 1, generator=generator, device=generator.device)
    inside = []
    for size, draw in zip(sizes, draws.to(inputs.device), strict=True):
        behind = torch.arange(size, device=inputs.device) - ((draw * size).floor() - side // 2)
        inside.append((behind >= 0) & (behind < side))
    return inputs.masked_fill(inside[0].view(count, 1, -1, 1) & inside[1].view(count, 1, 1, -1), 0)
