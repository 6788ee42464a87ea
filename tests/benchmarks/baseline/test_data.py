"""Splits that never mix, and folders that are read in order or refused by name."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.baseline.data import (
    Augment,
    Normalize,
    load_cifar10,
    load_cifar10_paper,
    load_digits_32,
    read_cifar10,
    split_indices,
)
from compression.errors import CompressionError
from tests.support.image_folders import folders


def hashes(images: torch.Tensor) -> set[str]:
    return {hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images}


def test_train_validation_and_test_never_mix(tmp_path: Path) -> None:
    for data in (load_digits_32(), load_cifar10(folders(tmp_path))):
        parts = [hashes(s.images) for s in (data.train, data.validation, data.test)]
        assert sum(map(len, parts)) == len(set.union(*parts))


def test_the_split_is_pinned_and_ignores_the_global_generator() -> None:
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        found.append(split_indices(100, (10, 20), seed=0))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert [len(part) for part in found[0]] == [10, 20, 70]
    assert torch.cat(found[0]).sort().values.equal(torch.arange(100))
    assert load_digits_32().fingerprint() == "2772f380b1adcfa4"


def test_digits_are_32_pixels_in_three_channels() -> None:
    data = load_digits_32()
    assert data.train.images.shape[1:] == (3, 32, 32)
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    inputs = data.train.inputs(slice(0, 500))
    assert abs(inputs.mean()) < 0.1
    assert abs(inputs.std() - 1) < 0.15


def test_image_folders_are_read_in_order(tmp_path: Path) -> None:
    (images, labels), test, title = read_cifar10(folders(tmp_path))
    assert images.shape == (20, 3, 32, 32)
    assert labels.tolist() == [0] * 10 + [1] * 10
    assert title == "CIFAR-10, JPEG copy"
    assert len(test[1]) == 20


def test_an_ending_in_capitals_is_an_image_too(tmp_path: Path) -> None:
    root = folders(tmp_path)
    file = next((root / "train" / "cat").iterdir())
    file.rename(file.with_suffix(".JPG"))
    assert len(read_cifar10(root)[0][1]) == 20


def test_any_format_that_pillow_reads_is_an_image(tmp_path: Path) -> None:
    root = folders(tmp_path)
    wanted = read_cifar10(root)
    for file in root.glob("t*/*/*.jpg"):
        Image.open(file).save(file.with_suffix(".webp"), lossless=True)
        file.unlink()
    found = read_cifar10(root)
    pairs = zip(found[0] + found[1], wanted[0] + wanted[1], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert found[2] == "CIFAR-10, image folders"


def test_the_papers_preparation_is_224_pixels(tmp_path: Path) -> None:
    data = load_cifar10_paper(folders(tmp_path))
    assert data.train.prepare == Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), size=224)
    assert data.validation.inputs(slice(0, 2)).shape == (2, 3, 224, 224)
    assert data.train.augment == Augment(shift=0, degrees=10)


def damage_missing(root: Path) -> None:
    (root / "test" / "cat").rename(root / "test" / "cow")


def damage_empty(root: Path) -> None:
    for file in (root / "train" / "dog").iterdir():
        file.unlink()


def damage_image(root: Path) -> None:
    (root / "train" / "dog" / "0003.jpg").write_bytes(b"not an image")


def damage_size(root: Path) -> None:
    Image.new("RGB", (16, 16)).save(root / "train" / "cat" / "x.png")


def damage_train(root: Path) -> None:
    (root / "train").rename(root / "training")


DAMAGE = {
    "other classes": (damage_missing, "same class folders"),
    "empty class": (damage_empty, "dog: class folder without images"),
    "corrupt image": (damage_image, r"0003\.jpg: not a readable image"),
    "wrong size": (damage_size, r"x\.png: expected 32x32 pixels, found 16x16"),
    "no train": (damage_train, "found neither"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder_is_named(tmp_path: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    damage(folders(tmp_path))
    with pytest.raises(CompressionError, match=message):
        load_cifar10(tmp_path)


def test_a_missing_folder_and_an_unreachable_download_say_what_to_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CompressionError, match="no such folder"):
        load_cifar10(tmp_path / "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def refused(*args: Any, **kwargs: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refused)
    with pytest.raises(CompressionError, match=r"could not be downloaded .* pass --data-root"):
        load_cifar10(None)
