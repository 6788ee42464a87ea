"""What a workload leaves out fits its data: a network's classes, the student, the recipes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.baseline import Data, check_outputs, fitted
from benchmarks.baseline.checks import check_before_reading
from benchmarks.baseline.data import Normalize
from benchmarks.baseline.networks import five_layer_cnn, named
from benchmarks.workloads import CIFAR10, FOLDER, Workload, image_folder, resolve, with_options
from compression.errors import CompressionError, UnsupportedTypeError
from compression.training import Split
from tests.support.image_folders import draw
from tests.support.nets import grey as grey_network
from tests.support.runs import run_pytest
from tests.support.workloads import TINY


def some(count: int = 20, *, channels: int = 1, classes: int = 4, **changed: Any) -> Data:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (count, channels, 32, 32), dtype=torch.uint8, generator=generator
    )
    made = {"images": images, "labels": torch.arange(count) % classes} | changed
    part = Split(made["images"], made["labels"], Normalize((0.5,), (0.25,)))
    return Data(part, part, part, title="some")


def test_the_student_has_the_channels_of_the_images_and_the_outputs_of_the_network() -> None:
    given = Workload("mine", grey_network, lambda _: some())
    workload = fitted(given, some())
    check_outputs(workload, some())
    assert workload.student()(torch.zeros(2, 1, 32, 32)).shape == (2, 5), "for distillation"
    assert workload.student()[0].in_channels == 1
    inherited = replace(CIFAR10, network=grey_network, name="mine")
    assert fitted(inherited, some()).student()(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
    assert fitted(CIFAR10, some(channels=3)) is not CIFAR10
    assert fitted(CIFAR10, some(channels=3)).student is five_layer_cnn


def test_a_student_of_your_own_is_refused_by_name() -> None:
    workload = fitted(replace(TINY, network=grey_network, student=grey_network), some(classes=5))
    check_outputs(workload, some(classes=5))
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(1024, 3))
    with pytest.raises(CompressionError, match="its student has 3 outputs, expected labels from 0"):
        check_outputs(replace(workload, student=lambda: narrow), some())


def test_a_named_network_has_the_classes_of_the_data() -> None:
    workload = fitted(
        Workload("mine", named("torchvision:mobilenet_v2"), lambda _: some()), some(channels=3)
    )
    assert workload.network().classifier[1].out_features == 4
    with pytest.raises(CompressionError, match="number of classes is known with the data"):
        named("torchvision:mobilenet_v2")()
    with pytest.raises(CompressionError, match="unknown architecture 'nothing'"):
        fitted(Workload("mine", named("nothing"), lambda _: some()), some())


def test_default_recipes_have_fewer_epochs_with_more_images() -> None:
    epochs = []
    for count in (100, 5_000, 100_000):
        images = torch.zeros(1, 1, 32, 32, dtype=torch.uint8).expand(count, -1, -1, -1)
        train = replace(some(4).train, images=images, labels=torch.arange(count) % 4)
        given = Workload("mine", grey_network, lambda _: some())
        found = fitted(given, replace(some(4), train=train))
        epochs.append((found.recipe.epochs, found.fine_tune.epochs, found.student_recipe.epochs))
    assert epochs[0] > epochs[1] > epochs[2]
    assert epochs[2][1] >= 1
    own = replace(given, recipe=replace(given.recipe, seed=7))
    assert fitted(own, replace(some(4), train=train)).recipe is own.recipe


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"labels": torch.arange(20) / 4},
            r"labels must be whole numbers of classes, found float32",
        ),
        ({"images": torch.rand(20, 1, 32, 32)}, r"expected uint8 images .* found float32 \(1, 1,"),
        ({"images": torch.zeros(20, 1, 32, 32, dtype=torch.int16)}, "found int16"),
    ],
    ids=["labels", "images", "wide images"],
)
def test_numbers_that_are_no_classes_or_pixels_are_refused(changed: Any, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        fitted(replace(TINY, network=grey_network), some(**changed))


def test_normalize_refuses_what_it_would_get_wrong() -> None:
    grey = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(CompressionError, match="found 3 for images of 1 channels"):
        Normalize((0.5,) * 3, (0.5,) * 3)(grey)
    with pytest.raises(CompressionError, match="a std per channel or one for all, found 2"):
        Normalize((0.5,), (0.5,) * 2)(grey)
    with pytest.raises(UnsupportedTypeError, match="found float32"):
        Normalize((0.5,), (0.5,))(grey.float())
    for std in ((0.0,), (-0.2,), (float("nan"),), ()):
        with pytest.raises(CompressionError, match="std must be above 0"):
            Normalize((0.5,), std)
    for mean in ((125.3,), (-0.1,), (float("nan"),), ()):
        with pytest.raises(CompressionError, match=r"mean must be of pixels in 0\.\.1"):
            Normalize(mean, (0.5,))
    assert Normalize((0.5,), (0.5,))(grey.expand(-1, 3, -1, -1)).shape == (2, 3, 4, 4)


def test_networks_are_refused_before_an_image_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = draw(tmp_path / "mine", sizes=((32, 32),))
    monkeypatch.setattr(Image.Image, "convert", None)
    for data in (
        image_folder(root),
        image_folder(root, size=32),
        image_folder(root, size=(32, 33)),
    ):
        check_before_reading(replace(FOLDER, network=named("five-layer-cnn"), data=data), None)
    misfit = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    workload = replace(FOLDER, data=image_folder(root), network=lambda: misfit)
    with pytest.raises(CompressionError, match=r"its network has 2 outputs.* found 0 to 2"):
        check_before_reading(workload, None)
    workload = replace(FOLDER, data=image_folder(root, channels=1), network=named("resnet18"))
    with pytest.raises(CompressionError, match=r"its network cannot take .*\(1, 1, 32, 32\)"):
        check_before_reading(workload, None)


def test_options_are_told_other_processes_by_the_workloads_name() -> None:
    name = with_options("folder", network="torchvision:mobilenet_v2", size="48x64")
    found = resolve(name)
    assert found.name == "folder"
    assert found.network == named("torchvision:mobilenet_v2")
    assert found.data == image_folder(size=(48, 64))
    assert with_options(name, network="torchvision:mobilenet_v2", size="48x64") == name, (
        "in a worker"
    )
    square = resolve(with_options("folder", network=None, size="64"))
    assert (square.network, square.data) == (FOLDER.network, image_folder(size=64))


FIVE_LINES = """
from benchmarks.workloads import Workload, image_folder
from tests.support.nets import RECIPE, grey as grey_network

MINE = Workload("mine", grey_network, image_folder("{root}", size=32, channels=1), RECIPE, RECIPE)
"""


def test_images_in_folders_become_a_table(tmp_path: Path, cache: Path) -> None:
    root = draw(tmp_path / "mine", sizes=((40, 30), (28, 28)), count=8)
    (tmp_path / "five_lines_of_mine.py").write_text(FIVE_LINES.format(root=root))
    options = ["--workload", "five_lines_of_mine:MINE", "-k", "baseline or static-int8"]
    run = run_pytest(
        "benchmarks/test_accuracy.py", "benchmarks/test_size.py", *options, "-p", "no:cacheprovider",
        XDG_CACHE_HOME=str(cache), PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "compression: mine (mine)" in run.stdout
    assert "static-int8-coded " in run.stdout


def test_a_damaged_image_ends_a_run_with_its_name(tmp_path: Path, cache: Path) -> None:
    root = draw(tmp_path / "mine")
    (root / "test" / "ring" / "0002.png").write_bytes(b"")
    options = ["--workload", "folder", "--network", "five-layer-cnn", "--size", "32"]
    run = run_pytest(
        "benchmarks/test_size.py", "-q", *options, "--data-root", str(root), "-k", "baseline",
        XDG_CACHE_HOME=str(cache),
    )  # fmt: skip
    assert run.returncode == pytest.ExitCode.USAGE_ERROR, run.stdout + run.stderr
    assert "ring/0002.png: not a readable image" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr
