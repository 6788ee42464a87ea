"""CUDA graphs: work captured once and replayed, and why some cannot be."""

import math
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from compression.errors import CompressionError

Work = Callable[[], Tensor]
"""Reads tensors on the device, and returns one there."""

WARMUPS = 3
_SYNCHRONIZING = "called a synchronizing CUDA operation"


class UncapturableError(CompressionError):
    """Work that no CUDA graph can hold."""


@dataclass(frozen=True, slots=True)
class GraphCapture:
    """A graph and the output that each replay writes; `work` keeps alive what the graph reads.

    The graph has a pool of memory of its own, which it frees with itself.
    """

    graph: torch.cuda.CUDAGraph
    output: Tensor
    work: Work

    def replay(self) -> None:
        """Launch the kernels again, on the stream in use."""
        self.graph.replay()

    @torch.inference_mode()
    def replay_output(self) -> Tensor:
        """Return the output of one replay, NaN where the replay wrote nothing."""
        self.output.fill_(math.nan)
        self.graph.replay()
        return self.output


def capture(work: Work) -> GraphCapture:
    """Capture `work` on a side stream, warm; UncapturableError says why it cannot be."""
    outside, side = torch.cuda.current_stream(), _side_stream(torch.cuda.current_device())
    side.wait_stream(outside)
    with torch.cuda.stream(side):
        for _ in range(WARMUPS):  # autotuning and lazy allocation must be over before the capture
            work()
        reason = obstacle(work)
    outside.wait_stream(side)
    if reason:
        raise UncapturableError(f"cannot be captured in a CUDA graph: {reason}")
    graph = torch.cuda.CUDAGraph()
    try:
        # A capture that fails leaves its own stream in use: the outer context does not.
        with torch.cuda.stream(outside), torch.cuda.graph(graph, stream=side):
            output = work()
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:  # that of the operation, where the end of the capture failed too
        first = str(error.__context__ or error).partition("\n")[0]
        raise UncapturableError(f"cannot be captured in a CUDA graph: {first}") from error
    return GraphCapture(graph, output, work)


def obstacle(work: Work) -> str | None:
    """Return why no graph can hold `work`, None where nothing is known against it.

    To be asked before a capture: a failed one leaves torch's allocator in a capture that never ends.
    torch's check knows its own operations that wait for the device, not those of other libraries.
    """
    before = torch.cuda.get_sync_debug_mode()
    _refuse_synchronizing("error")
    try:
        work()
    except RuntimeError as error:
        if _SYNCHRONIZING not in str(error):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return (
            f"it waits for the device in {frame.name} ({Path(frame.filename).name}:{frame.lineno})"
        )
    finally:
        _refuse_synchronizing(before)
    return None


def _refuse_synchronizing(mode: str | int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the mode a prototype
        torch.cuda.set_sync_debug_mode(mode)


@cache
def _side_stream(_: int) -> torch.cuda.Stream:
    """Return one stream per device: cuBLAS keeps a workspace of 32 MiB for each stream it sees."""
    return torch.cuda.Stream()
