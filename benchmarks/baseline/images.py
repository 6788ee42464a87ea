"""Images from files: pixels of 8 bits, whichever way they are stored."""

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
    known = _suffixes()
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


def _suffixes() -> set[str]:
    """Return the endings of the files that Pillow reads here."""
    return {s for s, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def _read_image(file: Path) -> Tensor:
    try:
        with Image.open(file) as image:
            size = image.size  # before anything is decoded: a bomb is refused by its header
            pixels = _rgb(image, file) if size == (32, 32) else None
    except CompressionError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds for damage, SyntaxError too
        raise CompressionError(f"{file}: not a readable image ({error})") from error
    if pixels is None:
        raise CompressionError(f"{file}: expected 32x32 pixels, found {size[0]}x{size[1]}")
    return pixels.permute(2, 0, 1)


def _rgb(image: Image.Image, file: Path) -> Tensor:
    """Return an image's pixels (H, W, 3) as uint8; refuse those whose value is not known."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        wide = np.array(image).astype(np.int64)  # of 16 bits: Pillow would clip them to white
        grey = torch.from_numpy(((wide + 128) // 257).astype(np.uint8))
        return grey.unsqueeze(2).expand(-1, -1, 3).contiguous()
    if image.mode in ("I", "F"):
        raise CompressionError(
            f"{file}: expected pixels of 8 or 16 bits, found mode {image.mode!r} ({image.format}), "
            "whose white is not known; store it with 8 bits"
        )
    if image.has_transparency_data and min(image.convert("RGBA").getchannel("A").tobytes()) < 255:
        raise CompressionError(
            f"{file}: found transparent pixels, whose colour is not known; store it on a background"
        )
    return torch.from_numpy(np.array(image.convert("RGB")))
