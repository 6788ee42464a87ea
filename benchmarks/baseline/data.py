"""The images: scikit-learn's digits, and CIFAR-10 from a folder or from torchvision's download."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.baseline.examples import known_labels, seen_of
from benchmarks.baseline.images import read_folder
from benchmarks.baseline.roots import check_cifar10_root, refuse_root
from benchmarks.baseline.transforms import Augment, Normalize
from compression.errors import CompressionError
from compression.paths import cache_folder
from compression.training import AnySplit, Split

__all__ = [
    "ROOTS",
    "Augment",
    "Data",
    "Normalize",
    "fingerprint_of",
    "load_cifar10",
    "load_cifar10_paper",
    "load_digits_32",
    "load_digits_224",
    "read_cifar10",
    "split_indices",
]

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10_VALIDATION_IMAGES = 2_000


@dataclass(frozen=True, slots=True)
class Data:
    """Three disjoint splits; choices and calibration use train and validation only."""

    train: AnySplit
    validation: AnySplit
    test: AnySplit
    title: str

    def to(self, device: torch.device | str) -> "Data":
        """Return the data with its tensors on `device`."""
        train, validation, test = (s.to(device) for s in (self.train, self.validation, self.test))
        return Data(train, validation, test, self.title)

    @property
    def num_classes(self) -> int:
        """Return the highest label and one."""
        return 1 + max(int(known_labels(s).max()) for s in (self.train, self.validation, self.test))

    def fingerprint(self) -> str:
        """Hash every split's images and labels in order, as `fingerprint_of`."""
        return fingerprint_of(self.train, self.validation, self.test)


def fingerprint_of(*splits: AnySplit) -> str:
    """Hash the images and labels of splits in order (SHA-256, 16 hex digits).

    Of a streamed split, what `seen_of` yields of it.
    """
    digest = hashlib.sha256()
    for split in splits:
        for part in seen_of(split):
            digest.update(part)
    return digest.hexdigest()[:16]


def split_indices(count: int, sizes: tuple[int, ...], *, seed: int) -> list[Tensor]:
    """Return disjoint random index tensors of the given sizes, and the rest last.

    The generator is its own, so that the split does not depend on what drew before.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return list(order.split([*sizes, count - sum(sizes)]))


def load_digits_32(data_root: Path | None = None) -> Data:
    """Return scikit-learn's 1,797 handwritten digits (8x8), upsampled to 32x32 in three channels."""
    return _digits(data_root)


def load_digits_224(data_root: Path | None = None) -> Data:
    """Return the digits of load_digits_32, upsampled further to 224x224 before the network."""
    return _digits(data_root, size=224)


def _digits(data_root: Path | None, *, size: int | None = None) -> Data:
    from sklearn.datasets import load_digits

    if data_root is not None:
        refuse_root(data_root)
    digits = load_digits()
    pixels = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) * (255 / 16)
    pixels = F.interpolate(pixels, size=32, mode="bilinear").round().to(torch.uint8)
    labels = torch.tensor(digits.target, dtype=torch.int64)
    images = pixels.expand(-1, 3, -1, -1).contiguous()
    test, validation, train = split_indices(len(labels), (500, 150), seed=0)
    prepare = Normalize((0.305,) * 3, (0.35,) * 3, size)
    return Data(
        Split(images[train], labels[train], prepare, Augment(shift=3, flip=False)),
        Split(images[validation], labels[validation], prepare),
        Split(images[test], labels[test], prepare),
        title="scikit-learn digits",
    )


def load_cifar10(data_root: Path | None = None) -> Data:
    """Return CIFAR-10 at 32x32; validation is a fixed random 2,000 of the training images."""
    return _cifar10(data_root, Normalize(CIFAR10_MEAN, CIFAR10_STD), Augment())


def load_cifar10_paper(data_root: Path | None = None) -> Data:
    """Return CIFAR-10 as the paper prepares it: 224x224, ImageNet statistics, flips, rotations."""
    prepare = Normalize(IMAGENET_MEAN, IMAGENET_STD, size=224)
    return _cifar10(data_root, prepare, Augment(shift=0, degrees=10))


def _cifar10(data_root: Path | None, prepare: Normalize, augment: Augment) -> Data:
    (images, labels), (test_images, test_labels), title = read_cifar10(data_root)
    count = min(CIFAR10_VALIDATION_IMAGES, len(labels) // 5)
    validation, train = split_indices(len(labels), (count,), seed=0)
    return Data(
        Split(images[train], labels[train], prepare, augment),
        Split(images[validation], labels[validation], prepare),
        Split(test_images, test_labels, prepare),
        title=title,
    )


Images = tuple[Tensor, Tensor]


def read_cifar10(data_root: Path | None) -> tuple[Images, Images, str]:
    """Return train and test (images uint8 (N, 3, 32, 32), labels) and the data's title.

    `data_root` holds torchvision's layout (cifar-10-batches-py) or image folders train/CLASS and
    test/CLASS; None means torchvision's download into the cache folder. CompressionError says what
    to pass where both are missing.
    """
    if data_root is None:
        return *_torchvision_cifar10(cache_folder() / "data", download=True), "CIFAR-10"
    check_cifar10_root(data_root)
    if (data_root / "cifar-10-batches-py").is_dir():
        return *_torchvision_cifar10(data_root, download=False), "CIFAR-10"
    return _cifar10_folders(data_root)


def _cifar10_folders(root: Path) -> tuple[Images, Images, str]:
    train, test = read_folder(root / "train"), read_folder(root / "test")
    if train[2] != test[2]:
        raise CompressionError(
            f"{root}: train and test must have the same class folders, found "
            f"{', '.join(train[2])} and {', '.join(test[2])}"
        )
    jpeg = next((root / "train").glob("*/*.jpg"), None) is not None
    return train[:2], test[:2], "CIFAR-10, JPEG copy" if jpeg else "CIFAR-10, image folders"


def _torchvision_cifar10(root: Path, *, download: bool) -> tuple[Images, Images]:
    from torchvision.datasets import CIFAR10

    try:
        parts = [CIFAR10(str(root), train=train, download=download) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        remedy = "pass --data-root FOLDER with CIFAR-10 in torchvision's layout or as image folders"
        what = "could not be downloaded" if download else f"in {root} could not be read"
        raise CompressionError(f"CIFAR-10 {what} ({error}); {remedy}") from error
    train, test = (
        (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in parts
    )
    return train, test


ROOTS: Mapping[Callable[[Path | None], Data], Callable[[Path], None]] = {
    load_digits_32: refuse_root,
    load_digits_224: refuse_root,
    load_cifar10: check_cifar10_root,
    load_cifar10_paper: check_cifar10_root,
}
"""What each of our loaders asks of --data-root; another's may even write to it."""
