"""Where labelled images come from: a split, or torch's own Dataset or DataLoader in its place."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from compression.errors import CompressionError, UnsupportedTypeError
from compression.training.checks import describe_any
from compression.training.reading import Pair, Reader, Workers, pair_of
from compression.training.split import Split, as_inputs
from compression.training.streamed import LOADING, StreamedSplit

AnySplit = Split | StreamedSplit
"""Labelled images as training and evaluation read them."""
Labelled = Split | StreamedSplit | Dataset[Any] | DataLoader[Any]
"""Labelled images, wherever they are taken."""


def as_split(data: Labelled) -> Split | StreamedSplit:
    """Return labelled images as a split: a Dataset as it is, a DataLoader's by its own options.

    Of a DataLoader count the Dataset, collate_fn and the options of its workers; the order and the
    size of batches are those of whoever asks. CompressionError for one that draws some examples more
    often than others, or has no batches; UnsupportedTypeError for what is no Dataset with a length.
    """
    if isinstance(data, Split | StreamedSplit):
        return data
    if isinstance(data, DataLoader):
        _check_batches(data)
        split = StreamedSplit(
            data.dataset,
            num_workers=data.num_workers,
            collate_fn=_collate_of(data),
            loading=_loading_of(data),
        )
        _check_whole(data)
        return split
    if isinstance(data, Dataset):
        return StreamedSplit(data)
    raise UnsupportedTypeError(
        f"expected a Split, a StreamedSplit, a torch Dataset or a DataLoader, found "
        f"{describe_any(data)}"
    )


def labelled_batches(data: Labelled, batch_size: int) -> Iterator[Pair]:
    """Yield prepared inputs and labels in order: in a DataLoader's own batches, or of `batch_size`.

    A stream of examples is read to its end. CompressionError names the example or batch that cannot
    be read.
    """
    if isinstance(data, DataLoader):
        yield from _loaded(data)
    elif isinstance(data, IterableDataset):
        yield from _loaded(DataLoader(data, batch_size, generator=torch.Generator()))
    else:
        split = as_split(data)
        starts = range(0, len(split), batch_size)
        for images, labels in split.read(slice(i, i + batch_size) for i in starts):
            yield as_inputs(split, images), labels


def _loaded(loader: DataLoader[Any]) -> Iterator[Pair]:
    """Yield a DataLoader's batches; those at indices are read as a split's are."""
    name = type(loader.dataset).__name__
    if type(loader) is DataLoader and not isinstance(loader.dataset, IterableDataset):
        _check_batches(loader)
        reader = Reader(loader.dataset, _collate_of(loader))
        workers = Workers(loader.num_workers, _loading_of(loader))
        yield from workers.read(reader, loader.batch_sampler, 0)  # type: ignore[arg-type]
        return
    batches, number = iter(loader), 0
    while True:
        number += 1
        try:
            batch = next(batches)
        except StopIteration:
            return
        except CompressionError:
            raise
        except Exception as error:
            if loader.num_workers:  # whose frames would keep the workers
                error = error.with_traceback(None)
            raise CompressionError(
                f"{name}: batch {number} cannot be read: {type(error).__name__}: {error}"
            ) from error
        yield pair_of(batch, None, f"{name}: batch {number}, {describe_any(batch)}")


def _check_whole(loader: DataLoader[Any]) -> None:
    """Refuse a DataLoader that does not give each example once: an order of ours would."""
    sampler, count = loader.sampler, len(loader.dataset)  # type: ignore[arg-type]
    in_order = type(sampler) is SequentialSampler
    shuffled = type(sampler) is RandomSampler and not sampler.replacement
    own = loader.batch_sampler if type(loader.batch_sampler) is not BatchSampler else None
    if own is not None or not (in_order or shuffled) or len(sampler) != count:  # type: ignore[arg-type]
        raise CompressionError(
            f"the DataLoader has a {type(own or sampler).__name__} of its own, and training draws its "
            "order by the recipe's seed: pass the Dataset, or torch.utils.data.Subset of the examples "
            "that count"
        )


def _check_batches(loader: DataLoader[Any]) -> None:
    if loader.batch_sampler is None and not isinstance(loader.dataset, IterableDataset):
        raise CompressionError(
            f"the DataLoader of {type(loader.dataset).__name__} has batch_size None, and so no "
            "batches: give it a batch_size, or pass the Dataset"
        )


def _collate_of(loader: DataLoader[Any]) -> Callable[[list[Any]], Any]:
    found: Callable[[list[Any]], Any] = loader.collate_fn
    return found


def _loading_of(loader: DataLoader[Any]) -> dict[str, Any]:
    """Return the options of a DataLoader's workers."""
    return {name: getattr(loader, name) for name in LOADING} if loader.num_workers else {}
