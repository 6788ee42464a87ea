"""A batch of the wanted size, however few images there are."""

import torch

from compression.errors import CompressionError
from compression.training import AnySplit


def repeat_images(split: AnySplit, count: int) -> AnySplit:
    """Return `count` images (N, C, H, W) with their labels, from the first again where they end.

    Real images, never zeros: the time of a kernel and the power that it draws depend on its values.
    """
    if count < 1:
        raise CompressionError(f"a batch needs at least 1 image, found {count}")
    index = torch.arange(count) % len(split)
    return split.select(index)
