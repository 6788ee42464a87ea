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

from benchmarks.baseline.data import Data, fingerprint_of
from benchmarks.baseline.examples import few_of, octets, spread
from benchmarks.baseline.workload import Workload, name_of
from compression.accounting import count_parameters
from compression.errors import CompressionError
from compression.layers import copy_model
from compression.nested import tensors_in
from compression.removal import remove_channels
from compression.training import AnySplit, Recipe, Split, StreamedSplit, fit

IMAGES = 64
"""That go through `prepare` and `augment`, spread over the split."""
DRAWS = 8
"""Augmentations of each image: 512 draws notice a probability that changed by 1%."""
TRAINED_IMAGES = 4
LARGE = 4_000_000
"""Parameters of a network whose probe is one of a narrower copy."""
PROBED_EPOCHS = 4
"""At most, of a training that is kept: two steps each."""


def weights_fingerprint(model: nn.Module) -> str:
    """Hash a network's state dict (SHA-256, 16 hex digits)."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(octets(tensor))
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


def probe_fingerprint(
    train: AnySplit, recipe: Recipe, work: Callable[[AnySplit, Recipe], str]
) -> str:
    """Hash what the code of a training does with these images (SHA-256, 16 hex digits).

    `work` trains by a recipe on a split, both as short as in `training_fingerprint` but for more
    epochs, and tells what came of it. What its code does only after more steps is not seen.
    """
    digest = hashlib.sha256()
    train, short = train.to("cpu"), _short(recipe)
    epochs = max(short.epochs, min(recipe.epochs, PROBED_EPOCHS))
    with _reproducible(recipe.seed):
        for part in _images_seen(train):
            digest.update(part)
        digest.update(work(few(train), replace(short, epochs=epochs)).encode())
    return digest.hexdigest()[:16]


def value_fingerprint(value: Any) -> str:
    """Hash what a training is given: networks, splits, tensors, sequences of them, and plain values."""
    match value:
        case nn.Module():
            return weights_fingerprint(value)
        case Split() | StreamedSplit():
            return fingerprint_of(value)
        case Tensor():
            about = f"{value.dtype}{tuple(value.shape)}".encode()
            return hashlib.sha256(about + bytes(octets(value))).hexdigest()[:16]
        case list() | tuple():
            return str([value_fingerprint(item) for item in value])
        case dict() if " at 0x" in repr(value):  # a function, whose address is no name
            return str([(key, value_fingerprint(item)) for key, item in value.items()])
    return name_of(value)


def few(value: Any) -> Any:
    """Return a few images of a split or batch, and a network, on the CPU; sequences of them alike."""
    match value:
        case nn.Module():
            return copy_model(value).cpu()
        case Split() | StreamedSplit():
            return few_of(value, TRAINED_IMAGES)
        case Tensor():
            return value[:TRAINED_IMAGES].cpu()
        case list() | tuple():
            return [few(item) for item in value]
    return value


def narrow(model: nn.Module, images: AnySplit) -> nn.Module:
    """Return a copy of `model` on the CPU, with a tenth of its work where it is large and that can be.

    A probe's steps are then as cheap as a small network's, and its layers are of the same kinds.
    """
    copied: nn.Module = few(model)
    if count_parameters(copied) < LARGE:
        return copied
    try:
        return remove_channels(copied, few(images).inputs(slice(0, 1)), macs=0.1)
    except CompressionError:
        return copied


def _images_seen(train: AnySplit) -> Iterator[bytes | memoryview]:
    index = spread(len(train), IMAGES)
    images, _ = train.at(index)
    for step in (train.prepare, train.augment):
        if is_dataclass(step):  # whose fields say more than any draw
            yield name_of(step).encode()
    yield from _outcome(lambda: train.prepare(images))
    augment = train.augment
    for draw in range(DRAWS if augment else 0):
        generator = torch.Generator().manual_seed(draw)
        yield from _outcome(lambda g=generator: augment(images, g))  # type: ignore[misc]
    for draw in range(1, DRAWS if isinstance(train, StreamedSplit) else 0):
        drawn, _ = train.at(index, seed=draw)
        if torch.equal(drawn, images):  # its Dataset draws nothing
            break
        yield octets(drawn)


def _network_seen(
    workload: Workload, train: AnySplit, recipe: Recipe
) -> Iterator[bytes | memoryview]:
    torch.manual_seed(recipe.seed)
    model = workload.network()
    yield weights_fingerprint(model).encode()
    few_images = few(train)
    yield from _outcome(lambda: model.eval()(few_images.inputs(slice(None))))
    try:
        fit(model, few_images, _short(recipe), loss=workload.loss)
    except CompressionError as error:  # the training itself will report it
        yield str(error).encode()
    yield weights_fingerprint(model).encode()


def _short(recipe: Recipe) -> Recipe:
    """Return the recipe for a few steps of the same kind that every machine computes alike."""
    sizes = tuple(dict.fromkeys(recipe.coarse_sizes))
    return replace(
        recipe, epochs=len(sizes) + 1, batch_size=2, coarse_sizes=sizes, precision="float32",
        compiled=False,
    )  # fmt: skip


def _outcome(step: Callable[[], Any]) -> Iterator[bytes | memoryview]:
    try:
        with torch.no_grad():
            result = step()
    except Exception as error:  # the training itself will report it
        yield type(error).__name__.encode()
        return
    for tensor in tensors_in(result):
        yield f"{tensor.dtype}{tuple(tensor.shape)}".encode()
        yield octets(tensor)


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
