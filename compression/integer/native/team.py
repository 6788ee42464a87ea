"""What the threads of a prediction share: memory to copy to, and who takes how much of each step."""

from typing import Any

import torch
from torch import Tensor

from compression.integer.steps.geometry import aligned

NUMBER = torch.int64
"""Of balance.h and queue.h."""


class Team:
    """The memory of so many threads, each of which takes as much of every step at first.

    `edges` (steps, threads + 1) says where the threads' portions of a step end, in parts of 2^20. The
    compiled code moves them, so that no thread waits for a slower one.
    """

    def __init__(self, library: Any, steps: int, threads: int, scratch_bytes: int) -> None:
        """Make it, with `scratch_bytes` for each thread."""
        self.threads = threads
        self.scratch = aligned(threads * scratch_bytes)
        self.memory = aligned(library.team_numbers(steps, threads), NUMBER)
        library.divide_evenly(self.memory.data_ptr(), steps, threads)
        self.edges: Tensor = self.memory[: steps * (threads + 1)].view(steps, threads + 1)
