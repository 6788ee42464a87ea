"""A miniature of ImageNet: its 1,000 folders of classes, with an image or two each."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.baseline.imagenet import CLASSES, ImageNet
from benchmarks.baseline.networks import resnet50_1000
from benchmarks.workloads import IMAGENET

MINIATURE = replace(
    IMAGENET,
    name="imagenet-miniature",
    pretrained=resnet50_1000,  # drawn: what is true of the weights cannot be learned here
    data=ImageNet(size=32),
    fine_tune_images=32,
    sparse_images=32,
    calibration_images=16,
    rows=("baseline", "static-int8", "l1-unstructured-60-tuned"),
)


def draw_imagenet(root: Path, *, train: int = 2, val: int = 1) -> Path:
    """Write so many drawn JPEGs of each class below train/CLASS and val/CLASS, and return `root`."""
    noise = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for number in range(CLASSES):
            folder = root / part / f"n{number:08}"
            folder.mkdir(parents=True)
            for i in range(count):
                side = (40, 36, 3) if i else (36, 44, 3)
                pixels = noise.integers(0, 256, side, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.JPEG")
    return root
