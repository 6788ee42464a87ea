"""Kernels per prediction: at batch 1 a GPU waits for launches, not for arithmetic."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_NO_KERNELS = ("Memcpy", "Memset")


def count_kernels(work: Callable[[], object]) -> int | None:
    """Return how many CUDA kernels `work` launches, by torch's profiler; None where it sees none.

    Copies and fills of memory are not counted. A profiler that may not trace the card sees nothing.
    """
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
        work()
        torch.cuda.synchronize()
    return kernels_among(seen.events()) or None


def kernels_among(events: Iterable[Any]) -> int:
    """Count the events that are kernels on the device."""
    return sum(
        event.device_type.name == "CUDA"
        and not event.name.startswith(_NO_KERNELS)
        and not getattr(event, "is_user_annotation", False)
        for event in events
    )
