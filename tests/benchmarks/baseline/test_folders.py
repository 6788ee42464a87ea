"""Folders of images as people have them: read as torchvision does, kept decoded, or refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.baseline import decoded
from benchmarks.baseline.data import Augment
from benchmarks.baseline.folders import image_folder, statistics
from compression.errors import CompressionError
from tests.support.image_folders import draw, folders

SIDES = (40, 30)
RAMP = np.linspace(0, 1, 1024).reshape(32, 32)
EIGHT = np.rint(RAMP * 255).astype(np.uint8)


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("dnn-compression-suite/images/*.uint8"))


@pytest.mark.parametrize(
    ("size", "steps"),
    [
        (24, [transforms.Resize(24), transforms.CenterCrop(24)]),
        (50, [transforms.Resize(50), transforms.CenterCrop(50)]),
        ((20, 28), [transforms.Resize((20, 28))]),
        (None, []),
    ],
    ids=["smaller", "larger", "a pair", "as they are"],
)
def test_pixels_are_those_of_torchvision(tmp_path: Path, size: Any, steps: list[Any]) -> None:
    root = draw(tmp_path / "mine", sizes=(SIDES,) if size is None else (SIDES, (30, 41), (64, 64)))
    found = image_folder(root, size=size)().test
    tensors = transforms.Compose([*steps, transforms.PILToTensor()])
    wanted = ImageFolder(str(root / "test"), tensors)
    assert found.images.equal(torch.stack([image for image, _ in wanted]))
    assert found.labels.tolist() == wanted.targets


STORED: dict[
    str, tuple[Image.Image, str, float]
] = {  # as what, and the codes by which it may differ
    "grey": (Image.fromarray(EIGHT), "png", 0),
    "16 bits": (Image.fromarray(np.rint(RAMP * 65535).astype(np.uint16)), "png", 1),
    "16 bits of TIFF": (Image.fromarray(np.rint(RAMP * 65535).astype(np.uint16)), "tif", 1),
    "a palette": (Image.fromarray(EIGHT).convert("P"), "gif", 0),
    "opaque alpha": (Image.fromarray(EIGHT).convert("RGBA"), "png", 0),
    "colours": (Image.fromarray(EIGHT).convert("RGB"), "bmp", 0),
    "inks": (Image.fromarray(EIGHT).convert("RGB").convert("CMYK"), "tif", 1),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", STORED)
def test_any_mode_is_the_same_picture(tmp_path: Path, name: str, channels: int) -> None:
    image, ending, within = STORED[name]
    root = draw(tmp_path / "mine", sizes=((32, 32),))
    image.save(root / "test" / "disc" / f"0.{ending}")
    found = image_folder(root, channels=channels)().test.images[0]
    assert found.shape == (channels, 32, 32)
    assert (found.int() - torch.from_numpy(EIGHT).int()).abs().max() <= within


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    root = draw(tmp_path / "mine", sizes=((32, 32),))
    black = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    black.putpixel((3, 5), (10, 20, 30, 255))
    black.save(root / "test" / "disc" / "0.png")
    grey = Image.new("P", (32, 32), 0)
    grey.putpalette([9, 9, 9, 70, 70, 70])
    grey.putpixel((1, 1), 1)
    grey.save(root / "test" / "disc" / "00.png", transparency=0)
    first, second = image_folder(root)().test.images[:2]
    assert first[:, 5, 3].tolist() == [10, 20, 30]
    assert second[:, 1, 1].tolist() == [70, 70, 70]
    assert int((first == 255).sum()) == int((second == 255).sum()) == 3 * 1023


def test_folders_with_val_and_without(tmp_path: Path) -> None:
    root = draw(tmp_path / "mine", count=10)
    split = image_folder(root, size=16)()
    again = image_folder(root, size=16)()
    assert (len(split.train), len(split.validation), len(split.test)) == (24, 6, 30)
    assert split.fingerprint() == again.fingerprint()
    assert split.title == "mine"
    assert split.train.labels[:10].unique().numel() > 1, "calibration sees several classes"
    assert split.train.augment == Augment(shift=2, flip=False)
    everything = torch.cat([split.train.images, split.validation.images]).flatten(1)
    draw(root, parts=("val",), count=4)
    given = image_folder(root, size=16)()
    assert (len(given.train), len(given.validation), len(given.test)) == (30, 12, 30)
    assert {*map(tuple, given.train.images.flatten(1).tolist())} == {
        *map(tuple, everything.tolist())
    }


def test_inputs_are_normalized_by_the_images_own_statistics_or_by_those_given(
    tmp_path: Path,
) -> None:
    root = draw(tmp_path / "mine", sizes=((32, 32),))
    data = image_folder(root)()
    inputs = data.train.inputs(slice(None))
    assert inputs.mean((0, 2, 3)).abs().max() < 1e-3
    assert (inputs.std((0, 2, 3)) - 1).abs().max() < 1e-3
    given = image_folder(root, mean=[0.5], std=[0.25], channels=1)().train
    assert given.inputs(slice(0, 1)).equal((given.images[:1].float() / 255 - 0.5) / 0.25)
    black = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    assert statistics(black) == ((0.0,), (1.0,))


def test_hidden_files_others_and_folders_below_a_class(tmp_path: Path) -> None:
    root = draw(tmp_path / "mine", count=3)
    wanted = image_folder(root, size=16)().test
    (root / "test" / ".ipynb_checkpoints").mkdir()
    (root / "test" / "disc" / "._0000.png").write_bytes(b"of a Mac")
    (root / "test" / "disc" / "notes.txt").write_text("none")
    below = root / "test" / "disc" / "0001"
    below.mkdir()
    (root / "test" / "disc" / "0001.png").rename(below / "0001.PNG")
    found = image_folder(root, size=16)().test
    assert found.labels.equal(wanted.labels)
    assert {*map(tuple, found.images.flatten(1).tolist())} == {
        *map(tuple, wanted.images.flatten(1).tolist())
    }


def test_images_are_decoded_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = draw(tmp_path / "mine")
    first = image_folder(root, size=16)()
    (file,) = kept(cache)

    def never(*_: Any) -> None:
        raise AssertionError("an image is opened")

    with monkeypatch.context() as patched:
        patched.setattr(Image, "open", never)
        assert image_folder(size=16)(root).fingerprint() == first.fingerprint()
    changed = next((root / "train" / "disc").iterdir())
    Image.open(changed).rotate(90).save(changed)
    assert image_folder(root, size=16)().fingerprint() != first.fingerprint()
    assert len(kept(cache)) == 2
    image_folder(root, size=17)()
    image_folder(root, size=16, channels=1)()
    assert len(kept(cache)) == 4
    assert file in kept(cache)


@pytest.mark.parametrize(
    "harm",
    [
        lambda octets: octets[:-1],
        lambda octets: octets + b"0",
        lambda octets: bytes([octets[0] ^ 1]) + octets[1:],
        lambda octets: octets[:0],
    ],
    ids=["truncated", "longer", "a bit", "empty"],
)
def test_a_damaged_file_of_decoded_images_is_made_again(
    tmp_path: Path, cache: Path, harm: Callable[[bytes], bytes]
) -> None:
    root = draw(tmp_path / "mine")
    wanted = image_folder(root, size=16)().fingerprint()
    (file,) = kept(cache)
    whole = file.read_bytes()
    file.write_bytes(harm(whole))
    assert image_folder(root, size=16)().fingerprint() == wanted
    assert file.read_bytes() == whole


def test_what_was_used_longest_ago_makes_room(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = draw(tmp_path / "mine")
    monkeypatch.setattr(decoded, "KEPT_BYTES", 1)
    held = image_folder(root, size=16)()
    image_folder(root, size=17)()
    assert len(kept(cache)) == 1, "and what is just made stays, however large it is"
    assert held.train.images.float().mean() > 0, "what is mapped stays readable"


def other_class(root: Path) -> None:
    (root / "test" / "ring").rename(root / "test" / "round")


def empty_class(root: Path) -> None:
    for file in (root / "train" / "ring").iterdir():
        file.unlink()


def no_picture(root: Path) -> None:
    (root / "train" / "ring" / "0001.png").write_bytes(b"not an image")


def cut_short(root: Path) -> None:
    file = root / "test" / "disc" / "0001.png"
    file.write_bytes(file.read_bytes()[:-200])


def leads_nowhere(root: Path) -> None:
    (root / "train" / "ring" / "a.png").symlink_to(root / "gone.png")


def floats(root: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32)).save(root / "train" / "disc" / "f.tif")


def other_size(root: Path) -> None:
    Image.new("RGB", (28, 28)).save(root / "train" / "disc" / "z.png")


def no_train(root: Path) -> None:
    (root / "train").rename(root / "training")


def no_test(root: Path) -> None:
    (root / "test").rename(root / "val")


def no_class(root: Path) -> None:
    for part in ("train", "test"):
        for name in ("disc", "ring", "square"):
            (root / part / name).rename(root / f"{part}-{name}")


DAMAGE: dict[str, tuple[Callable[[Path], None], int | None, str]] = {
    "other classes": (other_class, 16, r"same class folders, found only in train: ring"),
    "an empty class": (empty_class, 16, r"train/ring: class folder without images"),
    "no picture": (no_picture, 16, r"train/ring/0001\.png: not a readable image"),
    "a truncated picture": (cut_short, 16, r"test/disc/0001\.png: not a readable image"),
    "a link to nothing": (leads_nowhere, 16, r"ring/a\.png: not a readable image \(No such file"),
    "floats": (floats, 16, r"f\.tif: expected pixels of 8 or 16 bits, found mode 'F'"),
    "several sizes": (other_size, None, r"z\.png: expected 32x32.*found 28x28; .*size=N .--size N"),
    "no train": (
        no_train,
        16,
        r"mine: expected folders train/CLASS .* no train/ but test/, training/",
    ),
    "no test": (no_test, 16, r"found no test/ but train/, val/"),
    "no class": (no_class, 16, r"train: expected one folder per class, found none"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_is_named_and_nothing_is_kept(tmp_path: Path, cache: Path, name: str) -> None:
    damage, size, message = DAMAGE[name]
    root = draw(tmp_path / "mine", sizes=((32, 32),))
    damage(root)
    with pytest.raises(CompressionError, match=message):
        image_folder(root, size=size)()
    left = cache / "dnn-compression-suite" / "images"
    assert [p for p in left.glob("*") if p.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be one number of pixels or a pair"),
        ({"size": (16, 16, 3)}, "size must be"),
        ({"size": 1.5}, "size must be"),
        ({"channels": 4}, "channels must be 1 or 3, found 4"),
        ({"mean": (0.5,)}, "mean and std go together"),
        ({"mean": (125.0,), "std": (60.0,)}, r"mean must be of pixels in 0\.\.1"),
        ({"mean": (0.5,) * 3, "std": (0.2, 0.0, 0.2)}, "std must be above 0"),
        (
            {"mean": (0.5,) * 3, "std": (0.2,) * 3, "channels": 1},
            "found 3 for images of 1 channels",
        ),
    ],
)
def test_an_option_that_is_none_is_refused_at_once(options: Any, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        image_folder("anywhere", **options)


def test_no_root_and_a_single_image_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match=r"pass --data-root DIR"):
        image_folder()()
    with pytest.raises(CompressionError, match=r"nowhere: no such folder"):
        image_folder(tmp_path / "nowhere")()
    root = folders(tmp_path / "one", classes=("cat",), count=1)
    with pytest.raises(CompressionError, match=r"one training image leaves none for validation"):
        image_folder(root)()
