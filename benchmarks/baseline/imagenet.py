"""ImageNet from its folders, read as it goes: no more of its images are held than a batch."""

import os
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from benchmarks.baseline.data import IMAGENET_MEAN, IMAGENET_STD, Data, split_indices
from benchmarks.baseline.images import readable
from benchmarks.baseline.transforms import Normalize
from compression.errors import CompressionError
from compression.training import StreamedSplit

CLASSES = 1_000
VALIDATION_IMAGES = 2_000
WORKERS = 8
"""At most, that read images: a batch is the same for any number of them."""
MANY = 10_000
"""Images from which on workers save more than they cost to start."""


@dataclass(frozen=True, slots=True)
class ImageNet:
    """ImageNet's loader: 1,000 folders of classes in train/ and val/ below the root that it is given.

    Test images are those of val/, resized and cropped in the middle as torchvision's weights were
    judged; validation is drawn from train/ by a fixed seed. Training images are cropped and flipped at
    random. Classes are numbered in the order of their folders' names, as the weights number them.
    CompressionError names a folder that is missing, other than 1,000 classes, and a damaged image.
    """

    size: int = 224

    def __call__(self, root: Path | None = None) -> Data:
        """List the images below `root`; none is opened yet."""
        if root is None:
            raise CompressionError(
                "ImageNet cannot be downloaded without an account: pass --data-root FOLDER with "
                "train/CLASS and val/CLASS, as its archives unpack (image-net.org)"
            )
        learned, test = (
            _folder(root / "train", self._drawn()),
            _folder(root / "val", self._middle()),
        )
        seen = copy(learned)  # the same files, which are not listed again
        seen.transform = test.transform
        if learned.classes != test.classes:
            raise CompressionError(
                f"{root}: train and val must have the same class folders, found "
                f"{', '.join(sorted(set(learned.classes) ^ set(test.classes))[:5])} in one of them only"
            )
        count = min(VALIDATION_IMAGES, len(learned) // 5)
        validation, train = split_indices(len(learned), (count,), seed=0)
        return Data(
            _split(Subset(learned, train.tolist())),
            _split(Subset(seen, validation.tolist())),
            _split(Subset(test, _mixed(len(test)))),
            title=f"ImageNet, {self.size} pixels",
        )

    def _drawn(self) -> Callable[[Any], Tensor]:
        from torchvision import transforms  # it takes a second, which other workloads save

        crop = transforms.RandomResizedCrop(self.size, antialias=True)
        steps = [crop, transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
        return transforms.Compose(steps)  # type: ignore[no-any-return]

    def _middle(self) -> Callable[[Any], Tensor]:
        from torchvision import transforms

        shorter = round(self.size * 256 / 224)
        steps = [transforms.Resize(shorter, antialias=True), transforms.CenterCrop(self.size)]
        return transforms.Compose([*steps, transforms.PILToTensor()])  # type: ignore[no-any-return]


def _mixed(count: int) -> list[int]:
    """Return an order drawn once, so that the first images are of many classes."""
    found: list[int] = split_indices(count, (), seed=0)[0].tolist()
    return found


def _folder(folder: Path, transform: Callable[[Any], Tensor]) -> Any:
    from torchvision.datasets import ImageFolder

    try:
        images = ImageFolder(str(folder), transform, loader=_read)
    except (OSError, RuntimeError) as error:  # no such folder; a class without an image
        raise CompressionError(
            f"{folder}: expected a folder per class with images ({error})"
        ) from error
    if len(images.classes) != CLASSES:
        raise CompressionError(
            f"{folder}: expected the {CLASSES} class folders of ImageNet, found {len(images.classes)}; "
            "for other images pass --workload folder"
        )
    return images


def _read(path: str) -> Image.Image:
    with readable(path), Image.open(path) as image:
        return image.convert("RGB")


def _split(dataset: Any) -> StreamedSplit:
    workers = min(WORKERS, os.cpu_count() or 1) if len(dataset) >= MANY else 0
    prepare = Normalize(IMAGENET_MEAN, IMAGENET_STD)
    return StreamedSplit(dataset, prepare=prepare, num_workers=workers)
