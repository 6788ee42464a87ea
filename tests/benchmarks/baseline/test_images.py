"""The same picture is read however it is stored; one whose pixels are not known is refused."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.baseline.data import read_cifar10
from compression.errors import CompressionError
from tests.support.image_folders import folders

RAMP = np.linspace(0, 1, 1024).reshape(32, 32)
EIGHT = np.rint(RAMP * 255).astype(np.uint8)
STORED: dict[str, tuple[Image.Image, str]] = {
    # how it is stored, and as what: each holds the same grey ramp
    "16 bits": (Image.fromarray(np.rint(RAMP * 65535).astype(np.uint16)), "png"),
    "8 bits": (Image.fromarray(EIGHT), "png"),
    "a palette": (Image.fromarray(EIGHT).convert("P"), "png"),
    "opaque alpha": (Image.fromarray(EIGHT).convert("RGBA"), "png"),
    "grey with alpha": (Image.fromarray(EIGHT).convert("LA"), "png"),
    "colours": (Image.fromarray(EIGHT).convert("RGB"), "png"),
    "four inks": (Image.fromarray(EIGHT).convert("RGB").convert("CMYK"), "jpg"),
}
WITHIN = {  # codes of 255
    "16 bits": (1, "255 levels of 65,536, each rounded"),
    "four inks": (8, "JPEG loses"),
}


@pytest.mark.parametrize("name", STORED)
def test_the_same_picture_is_read_however_it_is_stored(tmp_path: Path, name: str) -> None:
    image, ending = STORED[name]
    folders(tmp_path)
    image.save(tmp_path / "train" / "cat" / f"0.{ending}")
    found = read_cifar10(tmp_path)[0][0][0]
    assert found.dtype == torch.uint8
    difference = (found.int() - torch.from_numpy(EIGHT).int()).abs().max()
    assert difference <= WITHIN.get(name, (0, ""))[0]


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    folders(tmp_path)
    Image.fromarray(EIGHT).convert("1").save(tmp_path / "train" / "cat" / "0.png")
    assert read_cifar10(tmp_path)[0][0][0].unique().tolist() == [0, 255]


def seen_through(mode: str) -> Image.Image:
    image = Image.fromarray(EIGHT).convert(mode)
    image.putalpha(Image.fromarray(EIGHT))
    return image


UNKNOWN: dict[str, tuple[Image.Image, str, str]] = {
    "floats": (Image.fromarray(RAMP.astype(np.float32)), "TIFF", "found mode 'F' .TIFF., whose"),
    "32 bits": (Image.fromarray((RAMP * 1e9).astype(np.int32)), "TIFF", "found mode 'I' .TIFF."),
    "glass": (seen_through("RGB"), "PNG", "found transparent pixels"),
    "grey glass": (seen_through("L"), "PNG", "found transparent pixels"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_pixels_whose_value_is_not_known_are_refused(tmp_path: Path, name: str) -> None:
    image, kind, message = UNKNOWN[name]
    folders(tmp_path)
    image.save(tmp_path / "train" / "cat" / "0.png", format=kind)
    with pytest.raises(CompressionError, match=rf"0\.png: .*{message}"):
        read_cifar10(tmp_path)


def test_a_damaged_picture_is_named_or_read_whole(tmp_path: Path) -> None:
    root = folders(tmp_path, count=1)
    file = root / "train" / "cat" / "0.png"
    Image.fromarray(EIGHT).convert("P").save(file)
    whole = file.read_bytes()
    for at in range(0, len(whole), 7):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        found: Any = None
        with contextlib.suppress(CompressionError):
            found = read_cifar10(root)[0][0]
        assert found is None or found.shape == (3, 3, 32, 32)
