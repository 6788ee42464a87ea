"""Labelled images that a Dataset gives one at a time: no more of them in memory than a few batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, Subset, default_collate

from compression.checks import is_whole
from compression.errors import CompressionError, UnsupportedTypeError
from compression.training.reading import Pair, Reader, Workers
from compression.training.split import as_inputs

LOADING = ("multiprocessing_context", "prefetch_factor", "timeout", "worker_init_fn")
"""Options of a DataLoader that say how workers read, not what."""


def as_they_are(images: Tensor) -> Tensor:
    """Return the images: the Dataset prepares them."""
    return images


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedSplit:
    """Labelled images that are read when they are needed, from a Dataset with a length.

    dataset      gives (input, label) at an index: tensors, arrays or numbers, labels any structure
                 of them
    prepare      maps a batch of what it gives, (N, ...), to inputs; as they are by default
    augment      (batch, generator) -> batch, before `prepare` and in training only
    num_workers  processes that read ahead; the batches and all draws are the same for any number
    collate_fn   makes a list of examples one batch; torch's own by default
    keys         of the input and the label in a batch, as ("image", "label") where examples are dicts
    loading      further options of torch's DataLoader for the workers: multiprocessing_context,
                 prefetch_factor, timeout, worker_init_fn
    device       where batches go before they are augmented and prepared

    A Dataset may draw from torch's, numpy's and random's global generators: each example is read by a
    seed of its own, of the recipe's seed, the epoch and its index. What it draws from generators that
    it holds itself is not seeded. UnsupportedTypeError for what is no Dataset with a length,
    CompressionError for none that holds an example, and, when it is read, naming the example that
    cannot be read or made a batch.

    >>> from torch.utils.data import TensorDataset
    >>> data = TensorDataset(torch.rand(8, 3, 4, 4), torch.arange(8) % 2)
    >>> train = StreamedSplit(data, num_workers=0)
    >>> len(train), train.inputs(slice(0, 2)).shape
    (8, torch.Size([2, 3, 4, 4]))
    """

    dataset: Any = field(kw_only=False)
    prepare: Callable[[Tensor], Tensor] = as_they_are
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    num_workers: int = 0
    collate_fn: Callable[[list[Any]], Any] = default_collate
    keys: tuple[Any, Any] | None = None
    loading: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        """Refuse what cannot be read in an order of our own."""
        _check_length(self.dataset)
        if not is_whole(self.num_workers) or self.num_workers < 0:
            raise CompressionError(f"num_workers must be 0 or more, found {self.num_workers!r}")
        if self.keys is not None and not (isinstance(self.keys, tuple) and len(self.keys) == 2):
            raise CompressionError(f"keys must be a pair (input, label), found {self.keys!r}")
        unknown = sorted(set(self.loading) - set(LOADING))
        if unknown:
            raise CompressionError(
                f"loading takes {', '.join(LOADING)}, found {', '.join(unknown)}"
            )

    def __len__(self) -> int:
        """Count the examples."""
        return len(self.dataset)

    def read(self, parts: Iterable[slice | Tensor], *, seed: int = 0) -> Iterator[Pair]:
        """Yield the images on `device` and the labels at each index, read ahead by the workers."""
        reader = Reader(self.dataset, self.collate_fn, self.keys)
        workers = Workers(self.num_workers, self.loading)
        for images, labels in workers.read(reader, map(self._indices, parts), seed):
            yield images.to(self.device), labels

    def at(self, index: slice | Tensor, *, seed: int = 0) -> Pair:
        """Return the images and labels at `index`, read in this process."""
        (found,) = replace(self, num_workers=0).read([index], seed=seed)
        return found

    def inputs(self, index: slice | Tensor) -> Tensor:
        """Return the prepared batch at `index`, without augmentation."""
        return as_inputs(self, self.at(index)[0])

    def augmented(self, index: slice | Tensor, generator: torch.Generator) -> Tensor:
        """Return the prepared batch at `index`, augmented where the split knows how."""
        return as_inputs(self, self.at(index)[0], generator)

    def select(self, index: Tensor) -> "StreamedSplit":
        """Return the split of the examples at `index` (N,)."""
        subset: Subset[Any] = Subset(self.dataset, index.tolist())
        return replace(self, dataset=subset)

    def take(self, count: int | None) -> "StreamedSplit":
        """Return the first `count` examples; all of them for None or where there are fewer."""
        if count is None or count >= len(self):
            return self
        if count < 1:
            raise CompressionError(f"a split needs at least one image, asked for {count}")
        return self.select(torch.arange(count))

    def to(self, device: torch.device | str) -> "StreamedSplit":
        """Return the split whose batches go to `device`."""
        return replace(self, device=torch.device(device))

    def _indices(self, part: slice | Tensor) -> list[int]:
        found: list[int] = (
            list(range(len(self))[part]) if isinstance(part, slice) else part.tolist()
        )
        return found


def _check_length(dataset: Any) -> None:
    """Refuse what is no map of 0, 1, ... to examples, and an empty one."""
    name = type(dataset).__name__
    if isinstance(dataset, IterableDataset):
        raise UnsupportedTypeError(
            f"{name} is an IterableDataset, without an example at an index: training reads in an order "
            "of its own; give it __len__ and __getitem__. Calibration and evaluation take it as it is"
        )
    if isinstance(dataset, Tensor | str | Mapping) or not hasattr(dataset, "__getitem__"):
        raise UnsupportedTypeError(f"expected a Dataset with __len__ and __getitem__, found {name}")
    try:
        count = len(dataset)
    except Exception as error:
        raise UnsupportedTypeError(
            f"{name}: expected a Dataset with a length ({type(error).__name__}: {error}); give it "
            "__len__"
        ) from error
    if count < 1:
        raise CompressionError(f"{name} holds no example: its __len__ is {count}")
