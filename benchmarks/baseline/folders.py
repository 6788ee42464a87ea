"""Images as people have them: folders train/CLASS and test/CLASS of any files that Pillow reads."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL
import torch
from torch import Tensor

from benchmarks.baseline.data import ROOTS, Augment, Data, Normalize, split_indices
from benchmarks.baseline.decoded import decoded
from benchmarks.baseline.images import Size, pixels_of, read_images
from benchmarks.baseline.listing import Listed, classes_of, first_image, listed_images
from compression.checks import is_whole
from compression.errors import CompressionError
from compression.training import Split

VALIDATION_IMAGES = 2_000
"""Split off the training images where no folder has them, at most a fifth."""
STATISTICS_IMAGES = 10_000
"""Of the training images, spread over all: mean and std are theirs."""
SHIFTED = Augment(shift=2, flip=False)
"""Letters and digits have no mirror images."""
_VERSION = "1"
"""Of the order and the pixels: another number decodes anew."""


def image_folder(
    root: Path | str | None = None,
    *,
    size: Size = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int = 3,
    augment: Augment | None = SHIFTED,
    title: str = "",
) -> "ImageFolder":
    """Return a loader, for a Workload's `data`, of images in folders train/CLASS and test/CLASS.

    - `root`: holds them; --data-root takes its place. val/CLASS are the validation images; without
      them a fifth of the training images is, at most 2,000, drawn by a fixed seed.
    - `size`: pixels that each image is resized to. One number: the shorter side's, then the middle is
      cut out (torchvision's Resize and CenterCrop). A pair: height and width. None: all have one size.
    - `mean`, `std`: of pixels in 0..1, per channel; those of the training images by default.
    - `channels`: 3 as torchvision's ImageFolder reads them, grey ones too; 1 for grey.
    - `augment`: of training images; shifts of up to 2 pixels by default.

    Any mode is read: palettes, 16 bits (65,535 is white), transparency, which is laid on white. As in
    ImageFolder, the orientation of EXIF is not followed. Decoded images are kept in the cache folder,
    as long as the files' names, sizes and times of modification stay, and are mapped into memory.

    CompressionError, naming the folder or file, for a root without train/ or test/, for classes that
    differ, an empty one, a damaged image and, without `size`, images of several sizes.

    >>> image_folder("flowers", size=64).size
    64
    """
    sides = size if isinstance(size, tuple) else (() if size is None else (size,))
    if not all(is_whole(side) and side >= 1 for side in sides) or len(sides) > 2:
        raise CompressionError(
            f"image_folder: size must be one number of pixels or a pair (height, width), found {size!r}"
        )
    if channels not in (1, 3):
        raise CompressionError(f"image_folder: channels must be 1 or 3, found {channels!r}")
    folder = ImageFolder(
        None if root is None else Path(root).expanduser(),
        size,
        None if mean is None else tuple(mean),
        None if std is None else tuple(std),
        channels,
        augment,
        title,
    )
    given = [values for values in (folder.mean, folder.std) if values is not None]
    Normalize(folder.mean or (0.5,), folder.std or (0.5,))(torch.zeros(1, channels, 1, 1).byte())
    if len(given) == 1:
        raise CompressionError("image_folder: mean and std go together, found only one of them")
    return folder


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The loader that `image_folder` describes."""

    root: Path | None
    size: Size
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    channels: int
    augment: Augment | None
    title: str

    def __call__(self, data_root: Path | None = None) -> Data:
        """Return the images below `data_root`, or below the loader's own root."""
        root = self.chosen(data_root)
        parts = _arranged(listed_images(root))
        shape = self._shape(root)
        files = [file for part in parts for file in part.files]
        images = decoded(
            self._key(root, parts),
            (len(files), *shape),
            lambda: read_images(files, shape, self.size),
        )
        train, validation, test = images.split([len(part.files) for part in parts])
        prepare = self._prepare(train)
        labels = [torch.tensor(part.labels) for part in parts]
        return Data(
            Split(train, labels[0], prepare, self.augment),
            Split(validation, labels[1], prepare),
            Split(test, labels[2], prepare),
            title=self.title or root.resolve().name,
        )

    def chosen(self, data_root: Path | None) -> Path:
        """Return the folder that is read; CompressionError where none is named."""
        root = data_root or self.root
        if root is None:
            raise CompressionError(
                "no folder of images is named: pass --data-root DIR, with train/CLASS and test/CLASS"
            )
        return root

    def example(self, data_root: Path | None = None) -> tuple[Tensor, int]:
        """Return an image of zeros as the network gets them, (1, C, H, W), and the number of classes.

        No image is decoded: the size is that of the first one's header.
        """
        root = self.chosen(data_root)
        return torch.zeros(1, *self._shape(root)), len(classes_of(root))

    def _shape(self, root: Path) -> tuple[int, int, int]:
        size = self.size
        height, width = (
            pixels_of(first_image(root)) if size is None
            else size if isinstance(size, tuple) else (size, size)
        )  # fmt: skip
        return self.channels, height, width

    def _key(self, root: Path, parts: list[Listed]) -> str:
        """Name what is decoded by the files' names, sizes and times, and by what is asked of them."""
        asked = (_VERSION, PIL.__version__, self.size, self.channels, str(root.resolve()))
        digest = hashlib.sha256(repr(asked).encode())
        for part in parts:
            lines = map(" ".join, zip(map(str, part.files), part.stamps, strict=True))
            digest.update(os.fsencode("\0".join(["", *lines])))
        return digest.hexdigest()[:16]

    def _prepare(self, train: Tensor) -> Normalize:
        if self.mean is not None and self.std is not None:
            return Normalize(self.mean, self.std)
        return Normalize(*statistics(train))


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std per channel of uint8 images (N, C, H, W) in 0..1, rounded to 4 places.

    They are of at most 10,000 images, spread over all. A channel that is one colour has std 1.
    """
    count = len(images)
    some = images[torch.linspace(0, count - 1, min(count, STATISTICS_IMAGES)).round().long()]
    level = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in some.unbind(1):
        share = torch.bincount(channel.reshape(-1), minlength=256) / channel.numel()
        mean = (share * level).sum()
        means.append(round(float(mean), 4))
        stds.append(round(float((share * (level - mean) ** 2).sum().sqrt()), 4) or 1.0)
    return tuple(means), tuple(stds)


def check_root(data: Callable[[Path | None], Data], root: Path | None) -> None:
    """Refuse, before anything is imported or read for it, a --data-root that a loader cannot take."""
    check = ROOTS.get(data)
    if isinstance(data, ImageFolder):
        classes_of(data.chosen(root))
    elif root is not None and check is not None:
        check(root)


def _arranged(found: dict[str, Listed]) -> list[Listed]:
    """Return train, validation and test; the first two in an order drawn once, for classes to mix."""
    train = found["train"]
    most = 0 if "validation" in found else max(1, min(VALIDATION_IMAGES, len(train.files) // 5))
    if most == len(train.files):
        raise CompressionError(
            f"{train.files[0].parent.parent}: one training image leaves none for validation; add more, "
            "or a folder val/CLASS beside it"
        )
    validation, rest = split_indices(len(train.files), (most,), seed=0)
    other = found.get("validation")
    if other is not None:
        (mixed,) = split_indices(len(other.files), (), seed=0)
        return [_taken(train, rest), _taken(other, mixed), found["test"]]
    return [_taken(train, rest), _taken(train, validation), found["test"]]


def _taken(listed: Listed, index: Tensor) -> Listed:
    order = index.tolist()
    return Listed(
        [listed.files[i] for i in order],
        [listed.labels[i] for i in order],
        [listed.stamps[i] for i in order],
    )
