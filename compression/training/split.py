"""Labelled images, and how a batch of them becomes a network's input."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from compression.errors import CompressionError, UnsupportedTypeError


@dataclass(frozen=True, slots=True)
class Split:
    """Images (N, ...) with labels (N, ...), and how a batch of them becomes a network's input.

    `prepare` maps stored images, (N, C, H, W) as a rule, to float32 inputs. `augment` is applied
    before it, in training only, and draws from the generator that it is given. UnsupportedTypeError
    for other than tensors, CompressionError for none or for another number of labels than of images.

    >>> images = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    >>> train = Split(images, torch.arange(8) % 2, prepare=lambda x: x.float() / 255)
    >>> len(train), train.inputs(slice(0, 2)).dtype
    (8, torch.float32)
    """

    images: Tensor
    labels: Tensor
    prepare: Callable[[Tensor], Tensor]
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def __post_init__(self) -> None:
        """Refuse an empty or inconsistent split."""
        for name in ("images", "labels"):
            held = getattr(self, name)
            if not isinstance(held, Tensor) or not held.ndim:
                found = "a 0-dim tensor" if isinstance(held, Tensor) else type(held).__name__
                raise UnsupportedTypeError(
                    f"a split's {name} must be a tensor (N, ...), found {found}"
                )
        if len(self.images) == 0 or len(self.images) != len(self.labels):
            raise CompressionError(
                f"a split needs as many labels as images and at least one of each, found "
                f"{len(self.images)} images and {len(self.labels)} labels"
            )

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Return where the images are, and draws are made."""
        return self.images.device

    def read(
        self, parts: Iterable[slice | Tensor], *, seed: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images as they are stored and the labels at each index; `seed` draws nothing."""
        yield from (self.at(index, seed=seed) for index in parts)

    def at(self, index: slice | Tensor, *, seed: int = 0) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Return the images as they are stored and the labels at `index`; `seed` draws nothing."""
        of_labels = index.to(self.labels.device) if isinstance(index, Tensor) else index
        return self.images[index], self.labels[of_labels]

    def inputs(self, index: slice | Tensor) -> Tensor:
        """Return the prepared batch at `index`, without augmentation."""
        return as_inputs(self, self.images[index])

    def augmented(self, index: slice | Tensor, generator: torch.Generator) -> Tensor:
        """Return the prepared batch at `index`, augmented where the split knows how."""
        return as_inputs(self, self.images[index], generator)

    def select(self, index: Tensor) -> "Split":
        """Return the split of the images at `index` (N,)."""
        images, labels = self.at(index)
        return replace(self, images=images, labels=labels)

    def take(self, count: int | None) -> "Split":
        """Return the first `count` images; all of them for None or where there are fewer."""
        if count is not None and count < 1:
            raise CompressionError(f"a split needs at least one image, asked for {count}")
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def to(self, device: torch.device | str) -> "Split":
        """Return the split with its tensors on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


def as_inputs(
    split: Any,
    images: Tensor,
    generator: torch.Generator | None = None,
    part: slice | None = None,
) -> Tensor:
    """Return stored images prepared as a split says, and augmented by draws of `generator`.

    Of a batch only `part` is prepared; what is drawn for its images is what it is in the whole.
    """
    if generator is not None and split.augment is not None:
        images = split.augment(images, generator)
    inputs: Tensor = split.prepare(images if part is None else images[part])
    return inputs
