"""Hashes of weights, and of what a training depends on beyond the names of its parts."""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.baseline.data import Data
from benchmarks.baseline.workload import Workload, name_of
from compression.errors import CompressionError
from compression.training import Recipe, Split, fit

IMAGES = 64
"""That go through `prepare` and `augment`, spread over the split."""
DRAWS = 8
"""Augmentations of each image: 512 draws notice a probability that changed by 1%."""
TRAINED_IMAGES = 4

Repair = Callable[[Split, Recipe], nn.Module]


def weights_fingerprint(model: nn.Module) -> str:
    """Hash a network's state dict (SHA-256, 16 hex digits)."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(_octets(tensor))
    return digest.hexdigest()[:16]


def training_fingerprint(workload: Workload, data: Data, recipe: Recipe) -> str:
    """Hash what a workload's code does, not how it is written (SHA-256, 16 hex digits).

    Some training images go through `prepare` and `augment` with fixed draws, and through a few steps
    of the seeded network: its first weights, its logits and its weights after these steps count.
    All runs on a CPU, in float32 and with one thread, so that each process computes the same.
    Pretrained weights are not read: their factory's name counts, in the recipe's fingerprint.
    """
    digest = hashlib.sha256()
    train = data.train.to("cpu")
    with _reproducible(recipe.seed):
        for part in (*_images_seen(train), *_network_seen(workload, train, recipe)):
            digest.update(part)
    return digest.hexdigest()[:16]


def repair_fingerprint(train: Split, recipe: Recipe, repair: Repair) -> str:
    """Hash what the code of a training does with these images (SHA-256, 16 hex digits).

    `repair` trains a network of its own on the split by the recipe that it is given: its weights after
    a few steps count, as in `training_fingerprint`.
    """
    digest = hashlib.sha256()
    train = train.to("cpu")
    with _reproducible(recipe.seed):
        for part in _images_seen(train):
            digest.update(part)
        digest.update(weights_fingerprint(repair(_few(train), _short(recipe))).encode())
    return digest.hexdigest()[:16]


def _images_seen(train: Split) -> Iterator[bytes | memoryview]:
    images = train.images[_spread(len(train), IMAGES)]
    for step in (train.prepare, train.augment):
        if is_dataclass(step):  # whose fields say more than any draw
            yield name_of(step).encode()
    yield from _outcome(lambda: train.prepare(images))
    augment = train.augment
    for draw in range(DRAWS if augment else 0):
        generator = torch.Generator().manual_seed(draw)
        yield from _outcome(lambda g=generator: augment(images, g))  # type: ignore[misc]


def _network_seen(workload: Workload, train: Split, recipe: Recipe) -> Iterator[bytes | memoryview]:
    torch.manual_seed(recipe.seed)
    model = workload.network()
    yield weights_fingerprint(model).encode()
    few_images = _few(train)
    yield from _outcome(lambda: model.eval()(few_images.inputs(slice(None))))
    try:
        fit(model, few_images, _short(recipe))
    except CompressionError as error:  # the training itself will report it
        yield str(error).encode()
    yield weights_fingerprint(model).encode()


def _few(train: Split) -> Split:
    few = _spread(len(train), TRAINED_IMAGES)
    return replace(train, images=train.images[few], labels=train.labels[few])


def _short(recipe: Recipe) -> Recipe:
    """Return the recipe for a few steps of the same kind that every machine computes alike."""
    sizes = tuple(dict.fromkeys(recipe.coarse_sizes))
    return replace(
        recipe, epochs=len(sizes) + 1, batch_size=2, coarse_sizes=sizes, precision="float32",
        compiled=False,
    )  # fmt: skip


def _spread(count: int, most: int) -> Tensor:
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def _outcome(step: Callable[[], Any]) -> Iterator[bytes | memoryview]:
    try:
        with torch.no_grad():
            result = step()
    except Exception as error:  # the training itself will report it
        yield type(error).__name__.encode()
        return
    if isinstance(result, Tensor):
        yield f"{result.dtype}{tuple(result.shape)}".encode()
        yield _octets(result)


def _octets(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Fix every generator and the number of threads, and restore them."""
    threads, ours, numpys = torch.get_num_threads(), random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.set_num_threads(1)
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(ours)
        np.random.set_state(numpys)
