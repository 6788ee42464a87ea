"""What is known of a split without reading all of it, where it is streamed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from compression.nested import tensors_in
from compression.training import AnySplit, Split

EXAMPLES = 64
"""Of a streamed split, spread over it, that stand for the others."""


def spread(count: int, most: int) -> Tensor:
    """Return up to `most` indices of `count`, evenly spread, the first and the last among them."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def seen_of(split: AnySplit) -> Iterator[bytes | memoryview]:
    """Yield what a split's fingerprint hashes: its images and labels.

    Of a streamed one that is its Dataset's name, its length, the labels that its Dataset holds, and 64
    examples: no more of a hundred thousand files is read. A file in between that changes is not seen.
    """
    if isinstance(split, Split):
        yield split.images.cpu().contiguous().numpy().tobytes()
        yield split.labels.cpu().numpy().tobytes()
        return
    labels = held_labels(split.dataset)
    yield f"{type(split.dataset).__name__}{len(split)}".encode()
    for tensor in tensors_in(([labels], split.at(spread(len(split), EXAMPLES)))):
        yield f"{tensor.dtype}{tuple(tensor.shape)}".encode()
        yield octets(tensor)


def known_labels(split: AnySplit) -> Tensor:
    """Return a split's labels: of a streamed one those its Dataset holds, else those of 64 examples."""
    if isinstance(split, Split):
        return split.labels.cpu()
    held = held_labels(split.dataset)
    return all_labels(split.select(spread(len(split), EXAMPLES))) if held is None else held


def all_labels(split: AnySplit) -> Tensor:
    """Return the labels of all images, in order, for which a streamed split reads them all."""
    if isinstance(split, Split):
        return split.labels
    return torch.cat([labels for _, labels in split.read(torch.arange(len(split)).split(64))])


def held_labels(dataset: Any) -> Tensor | None:
    """Return the class labels that a Dataset holds beside its examples, None where there are none.

    They are its `targets`, as of torchvision's Datasets; of a Subset, those of its indices.
    """
    if isinstance(dataset, Subset):
        whole = held_labels(dataset.dataset)
        return None if whole is None else whole[torch.as_tensor(dataset.indices)]
    targets = getattr(dataset, "targets", None)
    if getattr(dataset, "target_transform", None) is not None:  # by which labels become others
        return None
    try:
        labels = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError):
        return None
    return labels if labels.ndim and len(labels) == len(dataset) else None


def octets(tensor: Tensor) -> memoryview:
    """Return a tensor's bytes."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def few_of(split: AnySplit, most: int) -> AnySplit:
    """Return up to `most` images of a split, spread over it, on the CPU and read in this process."""
    few = split.select(spread(len(split), most)).to("cpu")
    return few if isinstance(few, Split) else replace(few, num_workers=0)
