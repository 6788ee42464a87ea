"""The built-in workloads, and how yours is found."""

import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from benchmarks.baseline import Data, Workload, check_before_reading, data, networks
from benchmarks.baseline.cifar10 import CIFAR10, CIFAR10_MUON, CIFAR10_PAPER
from benchmarks.baseline.folders import check_root, image_folder
from benchmarks.baseline.imagenet import ImageNet
from benchmarks.baseline.networks import named
from compression.errors import CompressionError
from compression.training import Recipe

__all__ = [
    "CIFAR10",
    "CIFAR10_PAPER",
    "WORKLOADS",
    "Data",
    "Workload",
    "image_folder",
    "named",
    "read_data",
    "resolve",
    "with_options",
]

DIGITS = Workload(
    name="digits",
    network=networks.resnet18_10,
    data=data.load_digits_32,
    recipe=Recipe(epochs=16, batch_size=64, learning_rate=0.05),
    fine_tune=Recipe(epochs=2, batch_size=64, learning_rate=0.01),
    student=networks.five_layer_cnn,
    student_layers=networks.STAGES,
    student_recipe=Recipe(epochs=5, batch_size=64, learning_rate=0.02),
    sparse=Recipe(epochs=1, batch_size=64, learning_rate=0.02),
    schedule_images=256,
    batch_sizes=(1, 32),
)

DIGITS_QUICK = dataclasses.replace(
    DIGITS,
    name="digits-quick",
    network=networks.five_layer_cnn,
    recipe=DIGITS.student_recipe,
    rows=(
        *("baseline", "l1-global-60", "channels-50-tuned", "static-int8", "int4-weights"),
        *("shared-16", "pruned-shared-coded", "bfloat16"),
    ),
)
"""A look at each kind of technique, on the student as the baseline."""

DIGITS_224 = dataclasses.replace(
    DIGITS,
    name="digits-224",
    data=data.load_digits_224,
    recipe=Recipe(
        epochs=12,
        batch_size=64,
        learning_rate=0.05,
        precision="bfloat16",
        coarse_sizes=(*[64] * 8, 112, 112),
    ),
    fine_tune=Recipe(epochs=1, batch_size=64, learning_rate=0.01, precision="bfloat16"),
    sparse=None,
    schedule_images=None,
    batch_sizes=(1, 64),
    coarse_for=networks.resnet18_10,
)
"""The default's network at the paper's image size, to measure the cost of an image there."""

FOLDER = Workload("folder", named("torchvision:resnet18"), image_folder())
"""Yours: images below --data-root, of --size, and --network."""

IMAGENET = Workload(
    name="imagenet",
    network=networks.resnet50_1000,
    pretrained=networks.resnet50_imagenet,
    trained=True,
    data=ImageNet(),
    fine_tune=Recipe(epochs=1, batch_size=64, learning_rate=1e-3, warmup=0.1, precision="bfloat16"),
    student_recipe=Recipe(epochs=30, batch_size=128, learning_rate=0.05, precision="bfloat16"),
    fine_tune_images=12_800,
    sparse_images=12_800,
    schedule_images=12_800,
    removal_images=12_800,
    student_images=100_000,
    calibration_images=512,
    rows=(
        *(
            "baseline",
            "l1-global-60",
            "l1-unstructured-60-tuned",
            "2-of-4-tuned",
            "channels-50-tuned",
        ),
        *("dynamic-int8", "static-int8", "static-int8-coded", "int8-qat", "int4-weights"),
        *("shared-16", "pruned-shared-coded", "float16", "bfloat16"),
    ),
)
"""ResNet-50 as torchvision trained it: 1.28 million images, of which a repair sees 1 in 100."""

_ALL = (DIGITS, DIGITS_224, CIFAR10, CIFAR10_MUON, CIFAR10_PAPER, FOLDER, IMAGENET, DIGITS_QUICK)
WORKLOADS = {w.name: w for w in _ALL}


def with_options(name: str, *, network: str | None, size: str | None) -> str:
    """Return the name of the workload `folder` with a network, and a size of its images.

    CompressionError for another workload, an unknown network and a size that is none.
    """
    if name.partition("?")[0] != FOLDER.name:
        raise CompressionError(
            f"--network and --size are of --workload {FOLDER.name}, found --workload {name}"
        )
    options = {key: v for key, v in (("network", network), ("size", size)) if v is not None}
    _folder(options)
    return f"{FOLDER.name}?{urlencode(options)}"


def _folder(options: dict[str, str]) -> Workload:
    """Return the workload `folder` as `with_options` names it."""
    workload = FOLDER
    if "network" in options:
        network = named(options["network"])
        network.of(1)  # or it is refused
        workload = dataclasses.replace(workload, network=network)
    if "size" in options:
        sides = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", options["size"])
        if sides is None:
            raise CompressionError(
                f"--size must be pixels, N or HEIGHTxWIDTH, found {options['size']!r}"
            )
        height, width = sides.groups()
        pixels = (int(height), int(width)) if width else int(height)
        workload = dataclasses.replace(workload, data=image_folder(size=pixels))
    return workload


def read_data(workload: Workload, root: Path | None) -> Data:
    """Return the workload's images; CompressionError where they are not what it promises.

    Other errors of its own code are left as they are.
    """
    check_root(workload.data, root)
    check_before_reading(workload, root)
    images = workload.data(root)
    if not isinstance(images, Data):
        raise CompressionError(
            f"workload {workload.name}: its data must return a benchmarks.workloads.Data, found "
            f"{type(images).__name__}"
        )
    return images


def resolve(name: str, folder: Path | None = None) -> Workload:
    """Return a workload by its name or as package.module:attribute, whose module may lie in `folder`.

    CompressionError says what is wrong with another name, with a module, or with what it holds.
    """
    if name in WORKLOADS:
        return WORKLOADS[name]
    if name.startswith(f"{FOLDER.name}?"):
        return _folder(dict(parse_qsl(name.partition("?")[2])))
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise CompressionError(
            f"unknown workload {name!r}: choose {', '.join(WORKLOADS)}, or package.module:attribute"
        )
    try:
        with _importable(folder):
            workload = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # of the user's module, whatever it does
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise CompressionError(f"workload {name!r} cannot be imported: {kind}{error}") from error
    if not isinstance(workload, Workload):
        raise CompressionError(
            f"workload {name!r} must be a benchmarks.workloads.Workload, "
            f"found {type(workload).__name__}"
        )
    return workload


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Let modules be imported from `folder` too, after all other places."""
    before = [*sys.path]
    sys.path += [str(folder)] if folder else []
    try:
        yield
    finally:
        sys.path[:] = before
