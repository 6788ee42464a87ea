"""Before anything is trained: the parts of a workload fit together, or are built to."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.baseline.data import Data
from benchmarks.baseline.examples import known_labels
from benchmarks.baseline.folders import ImageFolder
from benchmarks.baseline.networks import FiveLayer, five_layer_cnn, with_classes
from benchmarks.baseline.workload import FINE_TUNE, RECIPE, STUDENT_RECIPE, Workload
from compression.errors import CompressionError
from compression.training import TOP_1, Recipe, Split, feed_of, fit, scores

FEW = 2_000
"""Training images that the epochs of the default recipes are for."""


def fitted(workload: Workload, data: Data) -> Workload:
    """Return the workload with what it leaves to its data.

    A named network gets its classes; our five-layer student the channels of the images and as many
    outputs as the network, but where the task is not to name a class. The default recipes have fewer
    epochs where there are many images. CompressionError for labels that are no classes, and for a
    network that cannot take the images.
    """
    recipes: dict[str, Any] = {
        name: _for_images(default, len(data.train))
        for name, default in (
            ("recipe", RECIPE),
            ("fine_tune", FINE_TUNE),
            ("student_recipe", STUDENT_RECIPE),
        )
        if getattr(workload, name) is default
    }
    if names_classes(workload):
        image = data.validation.inputs(slice(0, 1)).cpu()
        workload = _with_networks(workload, image, _labels_of(data)[1] + 1)
    return replace(workload, **recipes)


def names_classes(workload: Workload) -> bool:
    """Tell whether the task is to name a class, by cross-entropy."""
    return workload.metric == TOP_1 and workload.loss is None


def check_before_reading(workload: Workload, data_root: Path | None) -> None:
    """Refuse networks that cannot take the images of a folder, or have too few outputs, by their names.

    No image is decoded for it. Of other loaders nothing is known before they have read their images.
    """
    if isinstance(workload.data, ImageFolder) and names_classes(workload):
        image, num_classes = workload.data.example(data_root)
        _check_networks(_with_networks(workload, image, num_classes), image, (0, num_classes - 1))


def check_outputs(workload: Workload, data: Data) -> None:
    """Refuse, before any training, a network that cannot take the images or has too few outputs.

    Where the task is not to name a class, its metric and loss are tried on a few examples instead.
    """
    if not names_classes(workload):
        _check_task(workload, data)
        return
    _check_networks(workload, data.validation.inputs(slice(0, 1)).cpu(), _labels_of(data))


def _labels_of(data: Data) -> tuple[int, int]:
    """Return the lowest and the highest label; CompressionError unless they are whole numbers."""
    found = [known_labels(split) for split in (data.train, data.validation, data.test)]
    for labels in found:
        if labels.is_floating_point() or labels.is_complex():
            raise CompressionError(
                f"{data.title}: labels must be whole numbers of classes, found "
                f"{str(labels.dtype)[6:]}; pass labels.long()"
            )
    whole = torch.cat([labels.flatten() for labels in found])
    return int(whole.min()), int(whole.max())


def _for_images(recipe: Recipe, count: int) -> Recipe:
    """Return a default recipe for so many training images: with more of them, fewer epochs."""
    epochs = min(recipe.epochs, max(math.ceil(recipe.epochs * FEW / count), recipe.epochs // 5))
    return replace(recipe, epochs=epochs)


def _with_networks(workload: Workload, image: Tensor, num_classes: int) -> Workload:
    """Return the workload with a named network and our student built to fit."""
    network = with_classes(workload.network, num_classes)
    if network is not workload.network:
        workload = replace(workload, network=network)
    if workload.student is not five_layer_cnn:
        return workload
    channels = image.shape[1] if image.ndim == 4 else 3
    outputs = _logits(workload, "network", image).shape[1]
    if (channels, outputs) == (3, 10):
        return workload
    return replace(workload, student=FiveLayer(channels, outputs))


def _check_networks(workload: Workload, image: Tensor, labels: tuple[int, int]) -> None:
    for part in ("network", "student"):
        outputs = _logits(workload, part, image).shape[1]
        if labels[0] < 0 or labels[1] >= outputs:
            raise CompressionError(
                f"{_title(workload, part)} has {outputs} outputs, expected labels from 0 to "
                f"{outputs - 1}, found {labels[0]} to {labels[1]}"
            )


def _title(workload: Workload, part: str) -> str:
    return f"workload {workload.name}: its {part}"


@torch.no_grad()
def _logits(workload: Workload, part: str, image: Tensor) -> Tensor:
    """Return what a workload's network or student gives for an image, if it is logits."""
    title, factory = _title(workload, part), getattr(workload, part)
    try:
        logits = factory().eval()(image)
    except Exception as error:  # of the user's code, whatever it is
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        raise CompressionError(
            f"{title} cannot take an input of shape {tuple(image.shape)} ({kind}{error})"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim < 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits)
        raise CompressionError(
            f"{title} must give one tensor of logits (N, classes), found {found}"
        )
    return logits


TRIED = 4
"""Examples that the metric and the loss of a task are tried on."""


def _check_task(workload: Workload, data: Data) -> None:
    """Refuse targets that are NaN, and a metric or loss that cannot take a network's outputs."""
    title = f"workload {workload.name}"
    for part, split in (
        ("training", data.train),
        ("validation", data.validation),
        ("test", data.test),
    ):
        if not isinstance(split, Split):  # which is read as it goes
            continue
        bad = torch.isnan(split.labels).nonzero()
        if len(bad):
            raise CompressionError(
                f"{title}: expected numbers for {part} targets, found NaN in {len(bad[:, 0].unique())} "
                f"of {len(split)}, the first in example {int(bad[0, 0])}; leave these examples out"
            )
    train, validation = (s.take(TRIED).to("cpu") for s in (data.train, data.validation))
    short = replace(
        workload.recipe,
        epochs=1,
        batch_size=TRIED,
        precision="float32",
        compiled=False,
        coarse_sizes=(),
    )
    for part, factory in (("network", workload.network), ("student", workload.student)):
        with torch.random.fork_rng(devices=[]):
            network = factory()
            try:
                scores(network, validation, workload.metric)
                fit(network, train, short, loss=workload.loss)
            except CompressionError as error:
                raise CompressionError(f"{title}: its {part}: {error}") from error


def with_fitting_sizes(
    workload: Workload, data: Data, device: torch.device, report: Callable[[str], None]
) -> Workload:
    """Return the workload without coarse sizes that its network cannot take, and report them."""
    recipe = workload.recipe_on(device)
    if not recipe.coarse_sizes:
        return workload
    few = data.train.take(2).to("cpu")
    short = replace(recipe, batch_size=2, precision="float32", compiled=False)
    with torch.random.fork_rng(devices=[]):
        network = workload.network()
    try:
        feed_of(network, few, short)
    except CompressionError as error:
        whole = replace(recipe, coarse_sizes=())
        report(
            f"{workload.name} baseline: trained on whole images, without the recipe's coarse sizes "
            f"{', '.join(map(str, dict.fromkeys(recipe.coarse_sizes)))} ({error})"
        )
        return workload.with_recipe_on(device, whole)
    return workload
