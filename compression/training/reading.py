"""Batches of a Dataset, read in this process or by workers: the same numbers either way."""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from compression.errors import CompressionError, UnsupportedTypeError
from compression.nested import tensors_in
from compression.training.checks import describe_any
from compression.training.generators import restored_generators, seed_generators

Pair = tuple[Tensor, Any]
"""A batch's inputs (N, ...), and its labels: one tensor, a structure of tensors, or None."""
Key = tuple[int, Sequence[Any]]
"""The seed of a batch's draws, and the indices of its examples."""
PAIRS = "say what is what by keys=(input, label) of a StreamedSplit, or by a collate_fn"


@dataclass(frozen=True, slots=True)
class Reader(Dataset[Any]):
    """Reads the examples of a Dataset at some indices as one batch, and says which one it cannot.

    Each example's draws from torch's, numpy's and random's global generators follow its own seed: they
    do not depend on which process reads it, nor on what was read before.
    """

    dataset: Any
    collate_fn: Callable[[list[Any]], Any]
    keys: tuple[Any, Any] | None = None

    def __getitem__(self, key: Key) -> Pair | CompressionError:
        """Read as a worker, whose error arrives as it is and not as the text of a traceback."""
        try:
            return self.read(*key)
        except CompressionError as error:
            return error

    def read(self, seed: int, indices: Sequence[Any]) -> Pair:
        """Return the inputs and labels of the examples at `indices`."""
        with restored_generators():
            examples = [self._example(seed, index) for index in indices]
            seed_generators(seed, ("batch", *indices[:1]))  # for a collate_fn that mixes images
            try:
                batch = self.collate_fn(examples)
            except Exception as error:
                raise CompressionError(
                    f"{self.name}: {_differences(examples, indices)} cannot be made into a batch "
                    f"({type(error).__name__}: {error}); give tensors of one shape and numbers for "
                    "labels, or a collate_fn"
                ) from error
        what = f"{self.name}: example {indices[0]}, {describe_any(examples[0])}"
        return _complete(pair_of(batch, self.keys, what), len(indices), self.name)

    @property
    def name(self) -> str:
        """Return what messages call the Dataset."""
        return type(self.dataset).__name__

    def _example(self, seed: int, index: Any) -> Any:
        seed_generators(seed, index)
        try:
            return self.dataset[index]
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            inside = Path(last.filename) != Path(__file__)
            place = f", line {last.lineno} of {Path(last.filename).name}" if inside else ""
            of = f" of {len(self.dataset)}" if hasattr(self.dataset, "__len__") else ""
            raise CompressionError(
                f"{self.name}: example {index}{of} cannot be read{place}: "
                f"{type(error).__name__}: {error}"
            ) from error


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes that read ahead: none for 0, and further options of torch's DataLoader."""

    count: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def read(self, reader: Reader, batches: Iterable[Sequence[Any]], seed: int) -> Iterator[Pair]:
        """Yield the batches of examples at these indices, in order."""
        if not self.count:
            yield from (reader.read(seed, indices) for indices in batches)
            return
        sampler: Any = ((seed, indices) for indices in batches)
        try:
            loader: DataLoader[Any] = DataLoader(
                reader, None, sampler=sampler, collate_fn=_same, num_workers=self.count,
                generator=torch.Generator(), **self.options,
            )  # fmt: skip
            for found in loader:
                if isinstance(found, CompressionError):
                    raise found
                yield found
        except CompressionError:
            raise
        except Exception as error:  # a worker that was killed, a Dataset that cannot be sent to it
            raise CompressionError(
                f"{reader.name}: its {self.count} workers cannot read it ({type(error).__name__}: "
                f"{error}); num_workers=0 reads in this process"
            ) from error.with_traceback(None)  # whose frames would keep the workers


def _same(batch: Any) -> Any:
    return batch


def pair_of(batch: Any, keys: tuple[Any, Any] | None, what: str) -> Pair:
    """Return the inputs and labels of a collated batch; `what` calls it in an error."""
    if keys is not None:
        try:
            inputs, labels = (batch[key] for key in keys)
        except (KeyError, IndexError, TypeError) as error:
            raise CompressionError(f"{what}: has no {keys[0]!r} or {keys[1]!r}") from error
    elif isinstance(batch, tuple | list) and len(batch):
        inputs, labels = batch[0], (batch[1] if len(batch) == 2 else batch[1:] or None)
    else:
        inputs, labels = batch, None
    if not isinstance(inputs, Tensor) or not inputs.ndim or inputs.is_complex():
        raise UnsupportedTypeError(
            f"{what}: expected tensors of inputs, alone or first in pairs (input, label), found "
            f"{describe_any(inputs)}; {PAIRS}"
        )
    return inputs, labels


def _complete(pair: Pair, count: int, name: str) -> Pair:
    """Return the pair where each of `count` examples has its input and label."""
    inputs, labels = pair
    for role, found in (("inputs", inputs), ("labels", labels)):
        if isinstance(found, Tensor) and (not found.ndim or len(found) != count):
            raise CompressionError(
                f"{name}: expected {role} of {count} examples from the collate_fn, found "
                f"{describe_any(found)}"
            )
    if labels is not None and not any(True for _ in tensors_in(labels)):
        raise UnsupportedTypeError(
            f"{name}: expected labels that are numbers or tensors, found {describe_any(labels)}; "
            "number the classes"
        )
    return pair


def _differences(examples: list[Any], indices: Sequence[Any]) -> str:
    """Name an example, and the first that is of another kind or shape."""
    kinds = [describe_any(example) for example in examples]
    other = next((i for i, kind in enumerate(kinds) if kind != kinds[0]), None)
    first = f"example {indices[0]}, {kinds[0]}"
    return first if other is None else f"{first}, and example {indices[other]}, {kinds[other]},"
