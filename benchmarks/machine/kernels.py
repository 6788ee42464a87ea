"""Which kernels really ran: a row may claim a latency only for what was seen to run."""

from collections import Counter

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from compression.integer import EXECUTORS, native, triton
from compression.modes import ExecutorModel

NATIVE, TRITON = native.KERNEL, triton.KERNEL
INTEGER_KERNELS = tuple(executor.kernels for executor in EXECUTORS.values() if executor.kernels)
"""Sets of kernels, of which one must run whole."""


def count_integer_kernels(ran: Counter[str]) -> int:
    """Return how many of the kernels that ran are integer executors'."""
    return sum(ran[kernel] for kernels in INTEGER_KERNELS for kernel in kernels)


@torch.inference_mode()
def kernels_of(model: nn.Module, inputs: Tensor) -> Counter[str]:
    """Return how often each kernel ran in one prediction, by torch's profiler's name for it.

    The profiler sees torch's own, and what runs on a GPU, in a graph too; the native executor's
    compiled code counts for itself.
    """
    device = [ProfilerActivity.CUDA] if inputs.is_cuda else []
    with profile(activities=[ProfilerActivity.CPU, *device], acc_events=True) as seen:
        model(inputs)
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
    ran = Counter(event.name for event in seen.events())
    for module in model.modules():
        if isinstance(module, ExecutorModel):
            ran.update(module.kernels_ran)
    return ran
