"""The batches of an epoch: their order, how they lie in memory, and what training does to them."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.errors import CompressionError, UnsupportedTypeError
from compression.nested import map_tensors
from compression.training.checks import describe
from compression.training.ranks import Ranks
from compression.training.recipe import Recipe, seed_of
from compression.training.split import Split, as_inputs
from compression.training.streamed import StreamedSplit


@dataclass(frozen=True, slots=True)
class Feed:
    """How a network takes its batches: the format of images in memory, and the fewest per batch.

    `reaches_all` tells that its one output depends on every parameter that is trained.
    """

    memory_format: torch.memory_format = torch.channels_last
    fewest: int = 1
    reaches_all: bool = field(default=False, compare=False)

    def steps(self, images: int, batch_size: int) -> int:
        """Return the batches per epoch."""
        return len(self.sizes(images, batch_size))

    def sizes(self, images: int, batch_size: int) -> list[int]:
        """Return the images of each batch of an epoch."""
        return [len(part) for part in self.parts(torch.arange(images), batch_size)]

    def parts(self, order: Tensor, batch_size: int) -> list[Tensor]:
        """Return `order` (N,) in batches; a last one of too few joins the one before it."""
        parts = list(order.split(batch_size))
        if len(parts) > 1 and len(parts[-1]) < self.fewest:
            parts[-2:] = [torch.cat(parts[-2:])]
        return parts

    def lay_out(self, inputs: Tensor) -> Tensor:
        """Return the inputs in the memory format, which only images (N, C, H, W) have."""
        if inputs.ndim != 4:
            return inputs.contiguous()
        return inputs.contiguous(memory_format=self.memory_format)


def batches(
    train: Split | StreamedSplit,
    recipe: Recipe,
    epoch: int,
    device: torch.device,
    feed: Feed | None = None,
    look: Callable[[Any], None] | None = None,
    ranks: Ranks | None = None,
) -> Generator[tuple[Tensor, Any]]:
    """Yield an epoch's inputs (N, ...), images channels last, and labels (N, ...) on `device`.

    Of each batch that is the part of this process; all draw the same batches, and read no more than
    their part where the split does not augment them. Everything is drawn on the device that holds the
    images: with images on `device` no batch waits for a copy. `look` sees each batch's labels where
    they were read. Raises CompressionError where the split's own functions fail.
    """
    feed, ranks = feed or Feed(), ranks or Ranks()
    # A generator per epoch: an epoch that is resumed after a kill sees the same batches.
    seed = seed_of(recipe, recipe.view(epoch))
    generator = torch.Generator(train.device).manual_seed(seed)
    order = torch.randperm(len(train), generator=generator, device=train.device)
    size = recipe.coarse_sizes[epoch] if epoch < len(recipe.coarse_sizes) else None
    whole = feed.parts(order, recipe.batch_size)
    parts = [ranks.share(len(index)).part for index in whole]
    asked = whole if train.augment is not None else list(map(_cut, whole, parts))
    for index, part, (images, labels) in zip(
        whole, parts, train.read(asked, seed=seed), strict=True
    ):
        if look is not None:
            look(labels)
        inputs = make_inputs(
            train, recipe, images, size, generator, device, of=len(index), part=part
        )
        mine = part if len(images) == len(index) else None
        place = partial(_placed, part=mine, device=device)
        yield feed.lay_out(inputs), map_tensors(labels, place, "labels")


def _cut(index: Tensor, part: slice | None) -> Tensor:
    return index if part is None else index[part]


def _placed(labels: Tensor, part: slice | None, device: torch.device) -> Tensor:
    return _cut(labels, part).to(device)


def make_inputs(
    train: Split | StreamedSplit,
    recipe: Recipe,
    images: Tensor,
    size: int | None,
    generator: torch.Generator,
    device: torch.device,
    *,
    of: int | None = None,
    part: slice | None = None,
) -> Tensor:
    """Return the inputs of stored images, augmented and resized to `size` where it is given.

    With `part` they are those of this part of a batch `of` so many, as they are in the whole of it;
    the images are the batch or its part. Raises CompressionError that names the image batch where the
    split's or recipe's step fails.
    """
    try:
        mine = part if len(images) == of else None
        inputs = as_inputs(train, images, generator, mine)
        if not isinstance(inputs, Tensor):
            raise UnsupportedTypeError(
                f"the split's prepare must return one tensor of inputs, found {type(inputs).__name__}"
            )
        inputs = inputs.to(device)
        if size is not None:
            inputs = F.interpolate(inputs, size=size, mode="bilinear", antialias=True)
        if recipe.cutout:
            inputs = cut_out(inputs, recipe.cutout, generator, of=of, part=part)
        return inputs
    except CompressionError:
        raise
    except Exception as error:
        steps = "prepare and augment" + (f", coarse_sizes {size}" if size else "")
        steps += f", cutout {recipe.cutout}" if recipe.cutout else ""
        raise CompressionError(
            f"a batch {describe(images)} cannot be made into inputs ({steps}): "
            f"{type(error).__name__}: {error}"
        ) from error


def cut_out(
    inputs: Tensor,
    side: int,
    generator: torch.Generator,
    *,
    of: int | None = None,
    part: slice | None = None,
) -> Tensor:
    """Return inputs (N, C, H, W) with a square of `side` pixels of each set to 0, the mean.

    Its centre is drawn from the whole image, so that some of it may lie outside (DeVries and Taylor
    2017, arXiv:1708.04552). The inputs may be `part` of a batch `of` so many, whose draws are made.
    """
    count, _, *sizes = inputs.shape
    draws = torch.rand(2, of or count, 1, generator=generator, device=generator.device)
    draws = draws if part is None else draws[:, part]
    inside = []
    for size, draw in zip(sizes, draws.to(inputs.device), strict=True):
        offset = torch.arange(size, device=inputs.device) - ((draw * size).floor() - side // 2)
        inside.append((offset >= 0) & (offset < side))
    return inputs.masked_fill(inside[0].view(count, 1, -1, 1) & inside[1].view(count, 1, 1, -1), 0)
