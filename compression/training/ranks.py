"""The processes that train one network together: who computes which part, and what they agree on."""

import hashlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.training.sharding import is_sharded

_TRAININGS = itertools.count()
"""Numbers the trainings of this process, which are those of every process of its group."""


@dataclass(frozen=True, slots=True)
class Share:
    """A process's part of a batch: `part` of its images, all of them where it is None.

    `images` is what they count for: over the processes it sums up to the batch. `factor` is that of
    their mean loss, so that its average over the processes is the mean loss of the batch.
    """

    part: slice | None
    images: float
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's number, and how many train together: one where there is no process group."""

    rank: int = 0
    world: int = 1

    @property
    def alone(self) -> bool:
        """Tell whether there is no other process."""
        return self.world == 1

    def share(self, count: int) -> Share:
        """Return this process's part of a batch of `count` images.

        >>> [Ranks(rank, 2).share(5).part for rank in (0, 1)]
        [slice(0, 2, None), slice(2, 5, None)]
        """
        if self.alone:
            return Share(None, count)
        if count < self.world:  # a process without an image would have no gradient: each takes all
            return Share(None, count / self.world)
        first, last = (count * rank // self.world for rank in (self.rank, self.rank + 1))
        return Share(slice(first, last), last - first, (last - first) * self.world / count)

    def most(self, count: int) -> int:
        """Return the images of the largest part, at least two where the batch has them."""
        return count if self.alone else max(min(count, 2), -(-count // self.world))

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        return tensor if self.alone else self._reduced(tensor, dist.ReduceOp.SUM)

    def longest(self, seconds: float, device: torch.device) -> float:
        """Return the largest of the processes' times."""
        if self.alone:
            return seconds
        time = torch.tensor(seconds, device=device)
        return self._reduced(time, dist.ReduceOp.MAX).item()

    def _reduced(self, tensor: Tensor, how: Any) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total, op=how)
        return total

    def agree(self, device: torch.device, batch_size: int, **given: object) -> None:
        """Raise CompressionError in every process where one of them was given something else."""
        if self.alone:
            return
        row = torch.tensor([_number(value) for value in given.values()], device=device)
        table = [torch.empty_like(row) for _ in range(self.world)]
        dist.all_gather(table, row)
        for column, (name, value) in enumerate(given.items()):
            numbers = [int(other[column]) for other in table]
            others = [rank for rank, number in enumerate(numbers) if number != numbers[0]]
            if others:
                raise CompressionError(
                    f"process {others[0]} of {self.world} trains with another {name} than process 0 "
                    f"(process {self.rank}: {value}); give every process the same network, images "
                    "and recipe"
                )
        if batch_size < self.world:
            raise CompressionError(
                f"a batch of {batch_size} images cannot be divided among {self.world} processes: "
                f"raise the recipe's batch_size, or start at most {batch_size}"
            )

    def wrapped(self, network: Any, *, reaches_all: bool) -> Callable[[Tensor], Any]:
        """Return the call of `network` by which the processes average its gradients.

        `reaches_all` tells that its outputs depend on every parameter: others are not waited for.
        """
        if self.alone or is_sharded(network):  # which averages them itself
            return network  # type: ignore[no-any-return]
        return nn.parallel.DistributedDataParallel(network, find_unused_parameters=not reaches_all)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let all processes end with the error of the one that failed first."""
        if self.alone:
            yield
            return
        key = f"compression/training-{next(_TRAININGS)}"
        try:
            with warnings.catch_warnings():  # of 1x1 kernels, which lie alike either way
                warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
                yield
        except Exception as error:
            first, reason = self._failed(key, error)
            if first == self.rank:
                raise
            raise CompressionError(reason) from error

    def _failed(self, key: str, error: Exception) -> tuple[int, str]:
        """Return which process failed first, this one unless another said so, and what it said."""
        first, reason = self.rank, str(error)
        with suppress(Exception):  # the store has gone with the process that held it
            store = dist.distributed_c10d._get_default_store()
            told = store.compare_set(key, "", f"{self.rank}:{error}").decode()
            number, _, reason = told.partition(":")
            first, reason = int(number), f"process {number} of {self.world}: {reason}"
        if first == self.rank and _is_lost(error):
            return -1, (
                f"process {self.rank} of {self.world} lost the connection to another one "
                f"({_last_line(error)}); that was killed, or its host cannot be reached: see what it "
                "printed"
            )
        return first, reason


def ranks_here() -> Ranks:
    """Return the processes of torch's default group; this one alone where there is none."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size())


def _number(value: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:7])


def _is_lost(error: BaseException | None) -> bool:
    """Tell whether an error, or what it comes from, is one of the connection."""
    if error is None:
        return False
    lost = isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )
    return lost or _is_lost(error.__cause__)


def _last_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0]
