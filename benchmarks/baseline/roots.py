"""What --data-root may be: told before anything is imported for it, or read."""

from pathlib import Path

from compression.errors import CompressionError


def check_cifar10_root(root: Path) -> None:
    """Refuse a folder in which CIFAR-10 is not laid out in one of the ways that are read."""
    if not root.is_dir():
        raise CompressionError(f"--data-root {root}: no such folder")
    if not (root / "cifar-10-batches-py").is_dir() and not (
        (root / "train").is_dir() and (root / "test").is_dir()
    ):
        raise CompressionError(
            f"--data-root {root}: expected torchvision's cifar-10-batches-py, or image folders "
            "train/CLASS and test/CLASS; found neither"
        )


def refuse_root(_root: Path) -> None:
    """Refuse any folder."""
    raise CompressionError(
        "the digits are embedded and read no folder: drop --data-root, or pass --workload cifar10"
    )
