"""The fastest tiles of a convolution, found by trying them on the device."""

import torch
from torch import Tensor

from compression.integer.triton.config import Config
from compression.integer.triton.launch import Launch

REPEATS = 20


def tune(launch: Launch, inputs: Tensor, outputs: Tensor) -> None:
    """Let `launch` keep the fastest of its candidates for a batch like `inputs`."""
    images = len(inputs)
    found: dict[Config, float] = {}
    for config in launch.candidates(images):
        launch.config = config
        milliseconds = _milliseconds(launch, inputs, outputs)
        if milliseconds is not None:
            found[config] = milliseconds
    if found:
        launch.choose(min(found, key=found.__getitem__))


def _milliseconds(launch: Launch, inputs: Tensor, outputs: Tensor) -> float | None:
    """Return the time of a replay in a CUDA graph; None for a tile that the device cannot hold."""
    from triton.runtime.errors import OutOfResources

    try:
        launch(len(inputs), inputs, outputs)  # compiles, outside of the capture
    except OutOfResources:
        return None
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for _ in range(REPEATS):
            launch(len(inputs), inputs, outputs)
    times = []
    for _ in range(3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / REPEATS)
    return min(times)
