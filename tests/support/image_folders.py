"""Image folders as CIFAR-10 may lie in them."""

from pathlib import Path

import torch
from PIL import Image


def folders(root: Path, *, classes: tuple[str, ...] = ("cat", "dog"), count: int = 10) -> Path:
    """Write random images of 32 pixels below train/CLASS and test/CLASS, and return `root`."""
    generator = torch.Generator().manual_seed(0)
    for part in ("train", "test"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (32, 32, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(root / part / name / f"{i:04}.jpg")
    return root
