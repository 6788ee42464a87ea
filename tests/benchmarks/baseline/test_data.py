import contextlib
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

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


def folders(root: Path, *, classes: tuple[str, ...] = ("cat", "dog"), count: int = 10) -> Path:
    generator = torch.Generator().manual_seed(0)
    for part in ("train", "test"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(0, 256, (32, 32, 3), generator=generator, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(root / part / name / f"{i:04}.jpg")
    return root


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


def test_augmentation_is_drawn_from_its_generator_and_keeps_dtype() -> None:
    images = torch.arange(4 * 3 * 32 * 32).view(4, 3, 32, 32).to(torch.uint8)
    augment = Augment(shift=4, degrees=10)
    a, b, c = (augment(images, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert a.dtype == torch.uint8
    assert a.shape == images.shape
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_shift_moves_whole_pixels() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    shifted = Augment(shift=4, flip=False)(images, torch.Generator().manual_seed(0))
    middle = shifted[0, :, 10:20, 10:20]
    assert any(
        torch.equal(middle, images[0, :, 10 + y : 20 + y, 10 + x : 20 + x])
        for y in range(-4, 5)
        for x in range(-4, 5)
    )


def plainly_augmented(
    images: torch.Tensor, augment: Augment, generator: torch.Generator
) -> torch.Tensor:
    """Return what Augment gave when it drew on the CPU alone, an image at a time."""
    count = len(images)
    rows, columns = torch.randint(0, 2 * augment.shift + 1, (2, count, 1), generator=generator)
    flips = torch.rand(count, generator=generator) < 0.5
    degrees = (torch.rand(count, generator=generator) * 2 - 1) * augment.degrees
    found = []
    for i, image in enumerate(images):
        padded = F.pad(image[None].float(), (augment.shift,) * 4, mode="reflect")[0]
        moved = padded[:, rows[i] : rows[i] + 32, columns[i] : columns[i] + 32]
        moved = moved.flip(2) if flips[i] else moved
        angle = torch.deg2rad(degrees[i : i + 1])
        theta = torch.stack([angle.cos(), -angle.sin(), 0 * angle])
        theta = torch.stack([theta, torch.stack([angle.sin(), angle.cos(), 0 * angle])])
        grid = F.affine_grid(theta.view(1, 2, 3), [1, 3, 32, 32], align_corners=False)
        rotated = F.grid_sample(moved[None], grid, padding_mode="reflection", align_corners=False)
        found.append(rotated[0].round().to(images.dtype))
    return torch.stack(found)


def test_the_draws_of_augmentation_are_what_they_were() -> None:
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    augment = Augment(shift=4, degrees=10)
    found = augment(images, torch.Generator().manual_seed(5))
    expected = plainly_augmented(images, augment, torch.Generator().manual_seed(5))
    assert (found.int() - expected.int()).abs().max() <= 1, "a draw elsewhere is another image"


def test_normalize_is_what_the_tensors_of_mean_and_std_give() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    prepare = Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (prepare.mean, prepare.std))
    assert torch.equal(prepare(images), (images.float() / 255 - mean) / std)


def test_normalize_is_by_mean_and_std() -> None:
    images = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    inputs = Normalize((0.5, 0.0, 1.0), (0.5, 1.0, 2.0))(images)
    assert inputs[0, :, 0, 0].tolist() == [1.0, 1.0, 0.0]
