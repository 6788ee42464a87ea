"""A prediction: how it is timed, and what is recorded of a GPU besides the time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine.cuda_flags import cuda_flags
from benchmarks.machine.energy import energy_facts
from benchmarks.machine.launches import count_kernels
from benchmarks.machine.memory import peak_memory_bytes
from benchmarks.timing.clock import Timer, cuda_event_timer, wall_timer
from benchmarks.timing.cuda_graph import capture, obstacle
from compression.nested import tensors_in

TOLERANCES = {
    "graph": (0.02, "the same kernels: a few roundings of bfloat16 (2^-8) in sums of free order"),
}
"""Of the eager prediction's largest output, and its reason."""

Predict = Callable[[], Tensor]


def prediction(model: nn.Module, images: Tensor) -> Predict:
    """Return a function that predicts `images`, which are on the model's device.

    Of a network of several outputs it returns the first.
    """

    def predict() -> Tensor:
        with torch.inference_mode():
            outputs = model(images)
            return outputs if isinstance(outputs, Tensor) else next(tensors_in(outputs), outputs)

    return predict


def timer(predict: Predict, timing: str, device: torch.device) -> Timer:
    """Return the timer of a way of timing: wall, event or graph."""
    if timing == "event":
        return cuda_event_timer(predict)
    if timing == "graph":
        return graph_timer(predict)
    return wall_timer(predict, device)


def graph_timer(predict: Predict) -> Timer:
    """Time replays of a prediction; AssertionError where a replay gives other outputs."""
    graph = capture(predict)
    eager, output = predict(), graph.replay_output()
    furthest, largest = (output - eager).abs().max(), eager.abs().max()
    limit = TOLERANCES["graph"][0]
    assert furthest <= limit * largest, f"a replay differs by {furthest} of {largest}"  # NaN fails
    return cuda_event_timer(graph.replay)


def card_facts(predict: Predict, images: Tensor, *, timing: str, smallest: bool) -> dict[str, Any]:
    """Return a GPU's facts besides the time: flags and memory in each row, the rest in one row."""
    if images.device.type != "cuda":
        return {}
    peak_bytes = peak_memory_bytes(predict, images.device)
    facts = {**cuda_flags(), "prediction_peak_memory_bytes": peak_bytes}
    if timing == "event" and smallest:
        facts["cuda_kernels"] = count_kernels(predict)
    if timing == "graph":
        facts |= energy_facts(capture(predict).replay, images.device, images=len(images))
    elif timing == "event" and obstacle(predict):
        facts |= energy_facts(predict, images.device, images=len(images))
    return facts
