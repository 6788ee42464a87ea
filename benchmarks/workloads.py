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
from benchmarks.baseline.folders import check_root, image_folder
from benchmarks.baseline.imagenet import ImageNet
from benchmarks.baseline.networks import named
from compression.errors import CompressionError
from compression.training import Recipe

__all__ = [
    "WORKLOADS",
    "Data",
    "Workload",
    "image_folder",
    "named",
    "read_data",
    "resolve",
    "with_options",
]

STAGES = {"2": "layer1", "6": "layer2", "10": "layer3"}
"""The five-layer student's activations, and the blocks of a ResNet at such a stride."""

DIGITS = Workload(
    name="digits",
    network=networks.resnet18_10,
    data=data.load_digits_32,
    recipe=Recipe(epochs=16, batch_size=64, learning_rate=0.05),
    fine_tune=Recipe(epochs=2, batch_size=64, learning_rate=0.01),
    student=networks.five_layer_cnn,
    student_layers=STAGES,
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

# An estimate, not a measurement. Forward and backward are 3.3 GFLOP per image: an epoch of 48,000
# takes 0.6 to 0.8 s at 25 to 35% of an H100's 800 TFLOP/s. Batch norm, ReLU and additions move some
# 25 MB per image: 0.4 s at 3 TB/s. With 1.0 to 1.5 s per epoch, 40 epochs take about a minute, and
# stay below three minutes at three times that. Eager, because compiling costs 30 to 60 s, and fusing
# saves at most 0.4 s per epoch. The batch divides the images; its rate is that of 128, 0.1, scaled.
CIFAR10_CUDA = Recipe(
    epochs=40,
    batch_size=500,
    learning_rate=0.4,
    label_smoothing=0.1,
    precision="bfloat16",
)
"""One-cycle SGD with Nesterov momentum, for 94% within three minutes on one GPU."""

CIFAR10_CUDA_LONG = dataclasses.replace(CIFAR10_CUDA, epochs=90, cutout=8, compiled=True)
"""For 95% within six minutes: 90 epochs are long enough for cutout to help, and by the same estimate
for compiling to pay."""

CIFAR10_CUDA_REMOVAL = Recipe(
    epochs=16, batch_size=500, learning_rate=0.2, warmup=0.1, precision="bfloat16"
)
"""A third of the baseline's training, as it trains: on a GPU that is what a repair may take."""

CIFAR10_REMOVAL = Recipe(
    epochs=4, batch_size=128, learning_rate=0.01, warmup=0.1, precision="bfloat16"
)
"""On a CPU, for half of the multiply-accumulates."""

CIFAR10 = Workload(
    name="cifar10",
    network=networks.resnet18_cifar,
    data=data.load_cifar10,
    recipe=Recipe(
        epochs=16,
        batch_size=128,
        learning_rate=0.1,
        precision="bfloat16",
        coarse_sizes=(*[16] * 6, *[24] * 7),
    ),
    coarse_for=networks.resnet18_cifar,
    cuda_recipe=CIFAR10_CUDA,
    fine_tune=Recipe(
        epochs=1, batch_size=128, learning_rate=0.01, warmup=0.1, precision="bfloat16"
    ),
    student=networks.five_layer_cnn,
    student_layers=STAGES,
    student_recipe=Recipe(
        epochs=30, batch_size=128, learning_rate=0.05, precision="bfloat16", views=6
    ),
    sparse=Recipe(epochs=1, batch_size=128, learning_rate=0.02, warmup=0.1, precision="bfloat16"),
    removal={
        0.5: CIFAR10_REMOVAL,
        0.25: dataclasses.replace(CIFAR10_REMOVAL, epochs=6),
        0.125: dataclasses.replace(CIFAR10_REMOVAL, epochs=15, learning_rate=0.05),
    },
    cuda_removal={0.5: CIFAR10_CUDA_REMOVAL},
    fine_tune_images=6_400,
    sparse_images=12_000,
    calibration_images=512,
)

# Ablated on ResNet-18 with the CIFAR stem, a seed each: 12,000 images at 16 pixels, 4 epochs, accuracy
# on 6,000 other images, CPU seconds of the steps on one thread.
#   SGD, batch 128                                    57.77%  305 s
#   ... alternating flips                             56.63%  266 s
#   Muon, batch 256, weights renormalized, no decay   68.13%  276 s
#   Muon, batch 256, decay, its momentum 0.6          67.22%  260 s
#   ... momentum 0.9                                  67.35%  259 s
#   ... shift factor 64                               69.43%  270 s
#   ... label smoothing 0.2                           67.17%  268 s
#   ... dirac start                                   64.50%  285 s
#   ... batch 512, both rates doubled                 58.13%  266 s
# An average of the weights (0.98 per step) had 0.7 points less to 0.2 more than the last of them. Kept:
# Muon and the factor; decay, since a norm that is set would change what no normalization follows.
CIFAR10_MUON = dataclasses.replace(
    CIFAR10,
    name="cifar10-muon",
    recipe=dataclasses.replace(
        CIFAR10.recipe, epochs=17, batch_size=256, optimizer="muon", shift_factor=64.0
    ),
    cuda_recipe=dataclasses.replace(
        CIFAR10_CUDA,
        epochs=60,
        batch_size=250,
        learning_rate=0.1,
        optimizer="muon",
        shift_factor=64.0,
    ),
)
"""CIFAR-10's baseline by Muon: in the CPU time of the other recipe, and for 95% on one GPU."""

CIFAR10_PAPER = Workload(
    name="cifar10-paper",
    network=networks.resnet18_10,
    pretrained=networks.resnet18_imagenet,
    data=data.load_cifar10_paper,
    recipe=Recipe(
        epochs=10,
        batch_size=128,
        learning_rate=1e-3,
        optimizer="adam",
        schedule="step",
        weight_decay=0.0,
        precision="bfloat16",
    ),
    fine_tune=Recipe(
        epochs=1,
        batch_size=128,
        learning_rate=1e-4,
        optimizer="adam",
        schedule="constant",
        weight_decay=0.0,
        precision="bfloat16",
    ),
    student=networks.five_layer_cnn,
    student_layers=STAGES,
    student_recipe=Recipe(
        epochs=10,
        batch_size=128,
        learning_rate=1e-3,
        optimizer="adam",
        schedule="step",
        weight_decay=0.0,
        precision="bfloat16",
    ),
)

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
