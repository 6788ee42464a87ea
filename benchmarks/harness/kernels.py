"""Which kernels really ran: a row may claim a latency only for what torch's profiler saw."""

from collections import Counter

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


@torch.inference_mode()
def kernels_of(model: nn.Module, inputs: Tensor) -> Counter[str]:
    """Return how often each operator ran in one prediction, by the profiler's name for it."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        model(inputs)
    return Counter(event.name for event in seen.events())
