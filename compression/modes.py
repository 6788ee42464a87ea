"""How a network runs: in training or evaluation mode, or by an executor."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` in eval mode, and each of its modules back in its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def in_own_precision(inputs: Tensor) -> torch.autocast:
    """Return the context of what computes on codes: torch.autocast would round their sums to bfloat16.

    A teacher, or a layer of a larger network, is called where the caller's own layers are cast.
    """
    return torch.autocast(inputs.device.type, enabled=False)


class ExecutorModel(nn.Module):
    """A network in the form that an executor runs, the reference executor's integer form among them.

    It only predicts: what compresses, casts or counts refuses it, or knows its kind. Its weights may
    lie outside of torch's tensors.
    """

    kernels_ran: Mapping[str, int] = MappingProxyType({})
    """How often each kernel ran in the latest prediction, of those that torch's profiler cannot see."""
