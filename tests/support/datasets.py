"""Datasets as people write them, and some that go wrong."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from compression.training import Split


class Made(Dataset[Any]):
    """Makes each example by a function of its index when it is asked for."""

    def __init__(self, make: Callable[[int], Any], count: int = 12) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


class Stream(IterableDataset[Any]):
    """Gives the examples of a Dataset one after the other."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        return (self.dataset[i] for i in range(len(self.dataset)))


def image(index: int) -> Tensor:
    return torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(index))


def labelled(index: int) -> tuple[Tensor, int]:
    return image(index), index % 4


def jittered(index: int) -> tuple[Tensor, int]:
    """Draw from the three global generators, as augmentations of a Dataset do."""
    noise = torch.rand(()) + float(np.random.rand()) + random.random()
    return image(index) + noise, index % 4


def held(split: Split) -> TensorDataset:
    return TensorDataset(split.images, split.labels)


def stored(count: int = 12) -> Split:
    images = torch.stack([image(i) for i in range(count)])
    return Split(images, torch.arange(count) % 4, prepare=lambda x: x)
