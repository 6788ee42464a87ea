"""Folders of images: as CIFAR-10 may lie in them, and of drawn shapes."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw


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


def draw(
    root: Path,
    *,
    parts: tuple[str, ...] = ("train", "test"),
    count: int = 5,
    sizes: tuple[tuple[int, int], ...] = ((40, 30),),
) -> Path:
    """Draw discs, rings and squares on noise below PART/CLASS, in sizes by turns, and return `root`."""
    noise = np.random.default_rng(len(parts))
    for part in parts:
        for name in ("disc", "ring", "square"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                width, height = sizes[i % len(sizes)]
                ground = noise.integers(0, 90, (height, width, 3), dtype=np.uint8)
                _shape(name, ground, noise).save(root / part / name / f"{i:04}.png")
    return root


def _shape(name: str, ground: np.ndarray, noise: np.random.Generator) -> Image.Image:
    image = Image.fromarray(ground)
    radius = int(noise.integers(image.height // 5, image.height // 3))
    x, y = (int(noise.integers(radius, side - radius)) for side in image.size)
    box = (x - radius, y - radius, x + radius, y + radius)
    colour = tuple(noise.integers(150, 255, 3).tolist())
    pen = ImageDraw.Draw(image)
    match name:
        case "disc":
            pen.ellipse(box, fill=colour)
        case "ring":
            pen.ellipse(box, outline=colour, width=max(2, radius // 4))
        case _:
            pen.rectangle(box, fill=colour)
    return image
