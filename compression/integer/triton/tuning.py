"""The fastest tiles of a convolution, found by trying them on the device."""

from functools import partial

import torch
from torch import Tensor

from compression.integer.triton.config import Config
from compression.integer.triton.launch import Launch

REPLAY_MS = 1
"""About how long one replay of a candidate's repetitions takes."""


def tune(launch: Launch, inputs: Tensor, outputs: Tensor) -> None:
    """Let `launch` keep the fastest of its candidates for a batch like `inputs`."""
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench_cudagraph

    images = len(inputs)
    times_ms: dict[Config, float] = {}
    torch.cuda.synchronize()  # what is timed runs on a stream of its own
    for config in launch.candidates(images):
        launch.config = config
        work = partial(launch, images, inputs, outputs)
        try:
            times_ms[config] = do_bench_cudagraph(work, rep=REPLAY_MS, return_mode="min")
        except OutOfResources:  # a tile that the device cannot hold
            continue
    if times_ms:
        launch.choose(min(times_ms, key=times_ms.__getitem__))
