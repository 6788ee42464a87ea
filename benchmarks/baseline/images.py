"""Images from files: pixels of 8 bits, whichever way they are stored."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from compression.errors import CompressionError


def read_folder(root: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Return the images of CLASS folders below `root`, sorted by name, with labels and classes."""
    classes = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    if not classes:
        raise CompressionError(f"{root}: expected one folder per class, found none")
    known = suffixes()
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (root / name).iterdir() if p.suffix.lower() in known)
        if not found:
            raise CompressionError(f"{root / name}: class folder without images (.png, .jpg, ...)")
        files += found
        labels += [label] * len(found)
    # One after another: threads, which wait for the interpreter's lock, take three times as long.
    images = [_read_image(file) for file in files]
    return torch.stack(images), torch.tensor(labels), classes


def suffixes() -> set[str]:
    """Return the endings of the files that Pillow reads here."""
    return {s for s, kind in Image.registered_extensions().items() if kind in Image.OPEN}


@contextmanager
def readable(file: Path | str) -> Iterator[None]:
    """Name the file for whatever its decoder raises: many kinds for damage, SyntaxError too."""
    try:
        yield
    except CompressionError:
        raise
    except Exception as error:
        raise CompressionError(f"{file}: not a readable image ({error})") from error


def _read_image(file: Path) -> Tensor:
    with readable(file), Image.open(file) as image:
        size = image.size  # before anything is decoded: a bomb is refused by its header
        pixels = _rgb(image, file) if size == (32, 32) else None
    if pixels is None:
        raise CompressionError(f"{file}: expected 32x32 pixels, found {size[0]}x{size[1]}")
    return pixels.permute(2, 0, 1)


def _rgb(image: Image.Image, file: Path) -> Tensor:
    """Return an image's pixels (H, W, 3) as uint8; refuse those whose value is not known."""
    image = _eight_bits(image, file)
    if image.has_transparency_data and min(image.convert("RGBA").getchannel("A").tobytes()) < 255:
        raise CompressionError(
            f"{file}: found transparent pixels, whose colour is not known; store it on a background"
        )
    return torch.from_numpy(np.array(image.convert("RGB")))


def _eight_bits(image: Image.Image, file: Path) -> Image.Image:
    """Return an image of 8 bits; refuse one whose white is not known."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        wide = np.array(image).astype(np.int64)  # of 16 bits: Pillow would clip them to white
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise CompressionError(
            f"{file}: expected pixels of 8 or 16 bits, found mode {image.mode!r} ({image.format}), "
            "whose white is not known; store it with 8 bits"
        )
    return image


Size = int | tuple[int, int] | None
"""Pixels that images are resized to: a square's side, or height and width; None leaves them."""


def read_images(files: Iterable[Path], shape: tuple[int, int, int], size: Size) -> Iterator[Tensor]:
    """Yield each file's pixels as uint8 (C, H, W), of one channel or three, resized to `size`.

    A size of one number is the shorter side's, then the middle is cut out, as torchvision's Resize
    and CenterCrop do; one of two is exact. Transparent pixels are laid on white. CompressionError
    names a file that cannot be read, or that is not of `shape` without a size.
    """
    for file in files:
        # Of tags and palettes that are odd; where warnings are errors they would be no image.
        with readable(file), warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            picture = _resized(_opaque(_eight_bits(image, file)), size)
            pixels = np.array(picture if shape[0] == 3 else picture.convert("L"))
        if pixels.shape[:2] != shape[1:]:
            raise CompressionError(
                f"{file}: expected {shape[2]}x{shape[1]} pixels, as the first image has, found "
                f"{pixels.shape[1]}x{pixels.shape[0]}; images of several sizes need size=N (--size N)"
            )
        yield torch.from_numpy(pixels.reshape(*shape[1:], shape[0])).permute(2, 0, 1).contiguous()


def pixels_of(file: Path) -> tuple[int, int]:
    """Return height and width of an image by its header; CompressionError where it has none."""
    with readable(file), Image.open(file) as image:
        return image.height, image.width


def _opaque(image: Image.Image) -> Image.Image:
    """Return an image in RGB, on white where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _resized(image: Image.Image, size: Size) -> Image.Image:
    if size is None:
        return image
    if isinstance(size, tuple):
        return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    short = min(image.size)
    width, height = (size if side == short else int(size * side / short) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + size, top + size))
