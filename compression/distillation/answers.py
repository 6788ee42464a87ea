"""A teacher's answers, kept for batches that come again."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Remembered:
    """A function of one tensor that is computed once per content: the same numbers, laid out alike.

    What is kept are the results, so many bytes as they have, and 16 bytes per batch: of 48,000 images,
    10 classes and 10 views 19 MB in float32.

    >>> asked = []
    >>> double = Remembered(lambda x: asked.append(x) or 2 * x)
    >>> double(torch.ones(2)), double(torch.ones(2))
    (tensor([2., 2.]), tensor([2., 2.]))
    >>> len(asked)
    1
    """

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        """Remember nothing yet."""
        self.function = function
        self.known: dict[bytes, Any] = {}

    def __call__(self, inputs: Tensor) -> Any:
        """Return the function's result, which is not to be written to."""
        key = _digest(inputs)
        if key not in self.known:
            self.known[key] = self.function(inputs)
        return self.known[key]


def _digest(tensor: Tensor) -> bytes:
    """Hash a tensor's numbers, type, shape, strides and device; one on a GPU is waited for."""
    inner_last = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
    lying = tensor.detach().permute(inner_last).contiguous().view(-1)  # no copy of a dense tensor
    about = f"{tensor.dtype} {tuple(tensor.shape)} {tensor.stride()} {tensor.device}"
    digest = hashlib.blake2b(about.encode(), digest_size=16)
    digest.update(lying.view(torch.uint8).cpu().numpy().data)
    return digest.digest()
